//! The command line of `mqchat chat`, and where passwords come from.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use client_sdk::{Builder, Client};
use proto::quote::shown;
use rustix::fs::Mode;
use rustix::process::umask;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::Failure;
use crate::line::Signals;

/// Longest password that is read, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4_096;
/// Largest file of certificates that is read, in bytes.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;
const PASSWORD_VARIABLE: &str = "MQCHAT_PASSWORD";

/// Chat in the terminal, or in pipes
///
/// The password, or a token of the device, is asked for, or read from --password-file or the variable MQCHAT_PASSWORD. F1 shows
/// the keys; docs/terminal.md tells the rest.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::doc_markdown,
    reason = "flags are what they are, and the comments are shown as help"
)]
pub struct Options {
    /// Who you are: your handle
    #[arg(value_name = "USER", required_unless_present = "login")]
    user: Option<String>,
    /// The same as an option
    #[arg(long, value_name = "USER", conflicts_with = "user")]
    login: Option<String>,
    /// mqtt://, mqtts://, ws:// or wss://
    #[arg(
        long,
        value_name = "URL",
        env = "MQCHAT_SERVER",
        default_value = "mqtt://127.0.0.1:1883"
    )]
    server: String,
    /// Read the password from this file: its first line
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Keep messages here; one program at a time [default: mqchat/SERVER/USER in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    folder: Option<PathBuf>,
    /// Keep nothing on this machine
    #[arg(long)]
    memory: bool,
    /// The conversation to begin with: @handle, me, a conversation id, or #title
    #[arg(long, value_name = "WHOM")]
    pub(crate) to: Option<String>,
    /// Lines in and lines out, for pipes; by itself if standard input or output is no terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// With lines: go on listening after the end of the input
    #[arg(long)]
    pub(crate) follow: bool,
    /// With lines: how many seconds to wait at the end until everything is sent
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// With lines: a conversation id and a blank before each line
    #[arg(long, short)]
    pub(crate) verbose: bool,
    /// With lines: each line is a message, whatever it begins with
    #[arg(long)]
    pub(crate) no_commands: bool,
    /// Signs of ASCII only
    #[arg(long)]
    pub(crate) ascii: bool,
}

impl Options {
    /// Who logs in.
    pub(crate) fn login(&self) -> &str {
        let login = self.user.as_deref().or(self.login.as_deref());
        let login = login.unwrap_or_default();
        login.strip_prefix('@').unwrap_or(login)
    }

    pub(crate) fn wait(&self) -> Duration {
        Duration::from_secs(self.wait)
    }

    /// What is sent outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        !self.memory
    }

    /// All that a client needs; asks for the password if it has to.
    ///
    /// # Errors
    /// A file that cannot be read, a folder that cannot be made, no password.
    pub(crate) async fn client(&self) -> Result<Builder, Failure> {
        let password = self.password().await?;
        let mut builder = Client::builder(&self.server).login(self.login(), password);
        if let Some(ca) = &self.ca {
            builder = builder.roots_pem(read(ca, CA_BYTES_MAX)?);
        }
        if !self.memory {
            builder = builder.folder(self.make_folder()?);
        }
        Ok(builder)
    }

    async fn password(&self) -> Result<String, Failure> {
        if let Some(file) = &self.password_file {
            let bytes = read(file, PASSWORD_BYTES_MAX)?;
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| Failure::usage(file, "not UTF-8"))?;
            return Ok(text.lines().next().unwrap_or_default().to_owned());
        }
        let variable = std::env::var_os(PASSWORD_VARIABLE);
        if let Some(password) = variable.filter(|password| !password.is_empty()) {
            let text = password.into_string();
            return text.map_err(|_| Failure::Usage(format!("{PASSWORD_VARIABLE} is not UTF-8")));
        }
        ask(format!("Password of {}: ", shown(self.login()))).await
    }

    fn make_folder(&self) -> Result<PathBuf, Failure> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => default_folder(&self.server, self.login())?,
        };
        // Messages are nobody else's business, in a folder that was there as well.
        umask(Mode::RWXG | Mode::RWXO);
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700);
        made.create(&folder)
            .map_err(|error| Failure::io(&folder, error))?;
        Ok(folder)
    }
}

/// Asks on the terminal itself, as standard input may be a pipe of messages; the terminal is given back also after a signal.
async fn ask(prompt: String) -> Result<String, Failure> {
    let no_terminal = |_| {
        let ways = format!("use --password-file or {PASSWORD_VARIABLE}");
        Failure::Usage(format!("no terminal to ask for a password: {ways}"))
    };
    let terminal = fs::File::open("/dev/tty").map_err(no_terminal)?;
    let before = tcgetattr(&terminal).map_err(|error| no_terminal(error.into()))?;
    let signals = Signals::new();
    let mut signals = signals.map_err(|error| Failure::io(Path::new("signals"), error))?;
    let asked = tokio::task::spawn_blocking(|| rpassword::prompt_password(prompt));
    let answer = tokio::select! {
        answer = asked => answer.map_err(io::Error::other).flatten(),
        () = signals.next() => Err(io::ErrorKind::Interrupted.into()),
    };
    answer.map_err(|error| {
        let restored = tcsetattr(&terminal, OptionalActions::Now, &before);
        match restored.map_err(io::Error::from) {
            Err(error) => Failure::io(Path::new("the terminal"), error),
            Ok(()) if error.kind() == io::ErrorKind::Interrupted => {
                Failure::Refused("no password was given".to_owned())
            }
            Ok(()) => Failure::io(Path::new("the password"), error),
        }
    })
}

fn read(file: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| Failure::io(file, error))?;
    let read = opened.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(file, error))?;
    if bytes.len() as u64 > most {
        return Err(Failure::usage(file, &format!("more than {most} bytes")));
    }
    Ok(bytes)
}

fn default_folder(server: &str, login: &str) -> Result<PathBuf, Failure> {
    let from_variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let data = from_variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || from_variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let Some(data) = data.or_else(home) else {
        let why =
            "neither XDG_DATA_HOME nor HOME says where to keep messages: use --folder or --memory";
        return Err(Failure::Usage(why.to_owned()));
    };
    Ok(data
        .join("mqchat")
        .join(file_name(authority(server)))
        .join(file_name(login)))
}

/// Host and port of an address, as they were written.
fn authority(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// A name that is one level of a path.
fn file_name(text: &str) -> String {
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
        _ => '_',
    };
    let name: String = text.chars().map(plain).collect();
    if name.trim_start_matches('.').is_empty() {
        format!("_{name}")
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_level_for_a_server_and_one_for_a_user() {
        for (server, name) in [
            ("mqtt://chat.example.org", "chat.example.org"),
            ("wss://chat.example.org:8443/mqtt", "chat.example.org_8443"),
            ("mqtt://[::1]:1883", "___1__1883"),
            ("mqtt://..", "_.."),
            ("", "_"),
        ] {
            assert_eq!(file_name(authority(server)), name, "{server}");
        }
        assert_eq!(file_name("a/../b"), "a_.._b");
    }
}
