//! The `mqchat` server: config → build → run → drain.
fn main() {}
