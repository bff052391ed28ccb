//! `mqchat chat` in a pseudo-terminal, with somebody who types and reads the screen; and in pipes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::deadline::{PATIENCE, eventually};

/// How to start `mqchat chat`.
pub(crate) struct Chat {
    command: Command,
}

impl Chat {
    /// As this user, with the password of `--dev`, in memory.
    pub(crate) fn of(server: &str, user: &str) -> Self {
        Self::with_password(server, user, Some(&format!("{user}-secret"))).argument("--memory")
    }

    /// The same, with messages in a folder.
    pub(crate) fn in_folder(server: &str, user: &str, folder: &Path) -> Self {
        let chat = Self::with_password(server, user, Some(&format!("{user}-secret")));
        chat.argument("--folder").argument(folder.to_str().unwrap())
    }

    /// With this password in the environment, or none.
    pub(crate) fn with_password(server: &str, user: &str, password: Option<&str>) -> Self {
        // A session and a controlling terminal of its own, if its standard input is one.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", env!("CARGO_BIN_EXE_mqchat"), "chat", user])
            .args(["--server", server])
            .env("TERM", "xterm-256color")
            .env("TZ", "UTC")
            .env_remove("MQCHAT_PASSWORD")
            .env_remove("MQCHAT_SERVER");
        if let Some(password) = password {
            command.env("MQCHAT_PASSWORD", password);
        }
        Self { command }
    }

    /// With one more argument.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// On a screen of 24 rows and 80 columns.
    pub(crate) fn on_screen(mut self) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_bytes();
        let line = File::options()
            .read(true)
            .write(true)
            .open(OsString::from_vec(name))
            .unwrap();
        let master = File::from(master);
        set_size(&master, 24, 80);
        let child = self
            .command
            .stdin(line.try_clone().unwrap())
            .stdout(line.try_clone().unwrap())
            .stderr(line.try_clone().unwrap())
            .spawn()
            .expect("setsid (Debian package util-linux)");
        let seen = Arc::new(Mutex::new(Seen {
            parser: vt100::Parser::new(cells(24), cells(80), 0),
            bytes: Vec::new(),
        }));
        let (mut out, eyes) = (master.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                let mut seen = eyes.lock().unwrap();
                seen.parser.process(&buffer[..count]);
                seen.bytes.extend_from_slice(&buffer[..count]);
            }
        });
        Terminal {
            child,
            master,
            line,
            seen,
        }
    }

    /// In pipes.
    pub(crate) fn in_pipes(mut self) -> Pipes {
        // Without a terminal there is nothing to be controlled by.
        let arguments: Vec<_> = self
            .command
            .get_args()
            .skip(2)
            .map(OsString::from)
            .collect();
        let variables: Vec<_> = self
            .command
            .get_envs()
            .map(|(name, value)| (name.to_owned(), value.map(OsString::from)))
            .collect();
        self.command = Command::new(env!("CARGO_BIN_EXE_mqchat"));
        self.command.args(arguments);
        for (name, value) in variables {
            match value {
                Some(value) => self.command.env(name, value),
                None => self.command.env_remove(name),
            };
        }
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let out = lines(child.stdout.take().unwrap());
        let complaints = lines(child.stderr.take().unwrap());
        Pipes {
            child,
            input,
            out: Some(out),
            complaints,
        }
    }
}

fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(200_000);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).unwrap();
}

struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// Keys that have no letter.
pub(crate) mod key {
    pub(crate) const ENTER: &str = "\r";
    pub(crate) const ESC: &str = "\x1b";
    pub(crate) const UP: &str = "\x1b[A";
    pub(crate) const PAGE_UP: &str = "\x1b[5~";
    pub(crate) const ALT_ENTER: &str = "\x1b\r";
    pub(crate) const CONTROL_UP: &str = "\x1b[1;5A";
    pub(crate) const CONTROL_F: &str = "\x06";
    pub(crate) const CONTROL_G: &str = "\x07";
    pub(crate) const CONTROL_K: &str = "\x0b";
    pub(crate) const CONTROL_N: &str = "\x0e";
    pub(crate) const CONTROL_Q: &str = "\x11";
}

/// `mqchat chat` on a screen; killed when dropped.
pub(crate) struct Terminal {
    child: Child,
    master: File,
    /// The other end, as it is left behind.
    line: File,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// What is to be read now.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// Everything that was sent to the terminal.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bytes.clone()
    }

    /// Waits until the screen is as wanted.
    ///
    /// # Panics
    /// With the screen, if it never is.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || Some(self.screen()).filter(|screen| wanted(screen)))
        }));
        found.unwrap_or_else(|_| panic!("no {what} on\n{}", self.screen()))
    }

    /// Waits until this is to be read.
    pub(crate) fn until_shown(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text))
    }

    /// Types.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Writes to somebody to whom nothing was written yet.
    pub(crate) fn write_to(&mut self, handle: &str, text: &str) {
        self.keys(key::CONTROL_K);
        self.until_shown("Go to, or write to a handle");
        self.keys(handle);
        self.until_shown(&format!("write to @{handle}"));
        self.keys(key::ENTER);
        self.until(&format!("conversation with {handle}"), |screen| {
            !screen.contains("Go to, or write") && screen.contains(&format!(" @{handle}"))
        });
        self.keys(text);
        self.until_shown(text);
        self.keys(key::ENTER);
    }

    /// Another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let mut seen = self.seen.lock().unwrap();
        seen.parser
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        set_size(&self.master, rows, columns);
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} \"$0\"");
        let status = Command::new("sh")
            .args(["-c", &kill, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until it has exited.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the terminal client to exit", || {
            self.child.try_wait().unwrap()
        })
    }

    /// Lines are edited and echoed by the terminal, and Ctrl-C is a signal.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The terminal is as a shell wants it.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn assert_restored(&self) {
        assert!(self.echoes());
        eventually("the screen to be given back", || {
            let seen = self.seen.lock().unwrap();
            let screen = seen.parser.screen();
            let restored =
                !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste();
            (restored && seen.bytes.windows(8).any(|window| window == b"\x1b[?1004l")).then_some(())
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the screen\n{}", self.screen());
        }
    }
}

/// `mqchat chat` in pipes; killed when dropped.
pub(crate) struct Pipes {
    child: Child,
    input: Option<std::process::ChildStdin>,
    out: Option<mpsc::Receiver<String>>,
    complaints: mpsc::Receiver<String>,
}

impl Pipes {
    /// Gives it a line.
    pub(crate) fn line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The end of the input.
    pub(crate) fn end(&mut self) {
        self.input = None;
    }

    /// The next line that it prints.
    pub(crate) fn next_line(&self) -> String {
        let out = self.out.as_ref().unwrap();
        out.recv_timeout(PATIENCE)
            .expect("nothing more was printed")
    }

    /// The next line of complaint with this in it.
    pub(crate) fn next_complaint(&self, wanted: &str) -> String {
        loop {
            let line = self.complaints.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no complaint of {wanted}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let kill = "kill -TERM \"$0\"";
        let id = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", kill, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has exited; what it printed that nobody asked for.
    pub(crate) fn wait_for_exit(&mut self) -> (Option<i32>, Vec<String>) {
        let status = eventually("the line client to exit", || self.child.try_wait().unwrap());
        let out = self
            .out
            .take()
            .map_or_else(Vec::new, |out| out.iter().collect());
        (status.code(), out)
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.complaints.try_iter() {
                eprintln!("--- {line}");
            }
        }
    }
}

/// Runs `mqchat chat` with this input, and waits for it.
pub(crate) fn chat(server: &str, user: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mqchat"))
        .args(["chat", user, "--memory", "--server", server])
        .args(arguments)
        .env("MQCHAT_PASSWORD", format!("{user}-secret"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends at once does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}
