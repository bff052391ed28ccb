//! The terminal: taken for the whole screen, and given back on every way out.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{
    DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange,
};
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio_util::sync::CancellationToken;

use crate::model::Model;
use crate::view;

/// The screen is taken: what a panic has to give back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The whole screen, until it is dropped.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes it. A panic anywhere gives it back, and then stops the program by the token.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn take(stop: CancellationToken) -> io::Result<Self> {
        give_back_after_panic(stop);
        let screen = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        // From here on dropping it gives back what was taken.
        TAKEN.store(true, Ordering::SeqCst);
        let screen = Self { terminal: screen };
        enable_raw_mode()?;
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableBracketedPaste,
            EnableFocusChange
        )?;
        Ok(screen)
    }

    /// Columns and rows.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn draw(&mut self, model: &Model) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(model, frame))?;
        Ok(())
    }

    /// What is on it counts no more: the next drawing paints all of it.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Rings.
    ///
    /// # Errors
    /// Those of the terminal.
    pub(crate) fn ring() -> io::Result<()> {
        let mut out = io::stdout();
        out.write_all(b"\x07")?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, whoever comes first. What a terminal that has gone away says to it interests nobody.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = queue!(
        out,
        DisableFocusChange,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = out.flush();
    let _ = disable_raw_mode();
}

fn give_back_after_panic(stop: CancellationToken) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
            stop.cancel();
        }));
    });
}
