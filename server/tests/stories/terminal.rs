//! The terminal client as a person and as a script see it: `mqchat chat` in a pseudo-terminal and in pipes
//! (`docs/terminal.md`).

mod lines;
mod screen;
