//! What begins with `/`: commands, the same in both modes.

use client_sdk::Seq;

/// Which message is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// `#12`: the one at this place.
    At(Seq),
    /// The newest one.
    Newest,
    /// The newest one of this user.
    NewestOwn,
    /// The newest one of somebody else.
    NewestOther,
}

/// A line that was entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// A message.
    Message(String),
    /// A command.
    Command(Command),
}

/// Something that shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Go to a conversation: `@bob`, `me`, an id, `#title`.
    To(String),
    /// The conversations.
    List,
    /// The last messages.
    History(usize),
    /// Search for words.
    Search(String),
    /// Make a group.
    Group(String, Vec<String>),
    /// Add members.
    Add(Vec<String>),
    /// Remove a member.
    Remove(String),
    /// Leave, and name the next owner.
    Leave(Option<String>),
    /// React; `-👍` takes it back.
    React(Which, String),
    /// Quote a message.
    Reply(Which, String),
    /// Give an own message another text.
    Edit(Which, String),
    /// Delete for everybody.
    Delete(Which),
    /// Delete for oneself.
    Hide(Which),
    /// Pin or unpin.
    Pin(Which, bool),
    /// Everything is read.
    Read,
    /// Show as unread.
    Unread,
    /// Who got and who read a message.
    Status(Which),
    /// The members.
    Who,
    /// Mute or not.
    Mute(bool),
    /// Put away or not.
    Archive(bool),
    /// On top of the list or not.
    Top(bool),
    /// How one wants to be seen.
    Presence(String, String),
    /// Try again what was refused.
    Retry,
    /// Drop what was refused.
    Discard,
    /// Connect now.
    Connect,
    /// What can be typed.
    Help,
    /// End.
    Quit,
}

/// The most that `/history` shows.
pub(crate) const HISTORY_MAX: usize = 500;
const HISTORY: usize = 20;

/// All commands, with what they do.
pub(crate) const HELP: &[(&str, &str)] = &[
    (
        "/to WHOM",
        "go to @handle, me, a conversation id, or #title",
    ),
    ("/list", "the conversations"),
    (
        "/history [N]",
        "the last N messages, with their places #1, #2 …",
    ),
    ("/search WORDS", "search what is stored here"),
    ("/group TITLE @A @B", "make a group"),
    ("/add @A …  /remove @A", "members of a group"),
    (
        "/leave [@OWNER]",
        "leave; the last owner names the next one",
    ),
    ("/who", "the members"),
    (
        "/reply [#N] TEXT",
        "quote a message (the newest one of somebody else)",
    ),
    ("/react [#N] EMOJI", "react (-EMOJI takes it back)"),
    ("/edit [#N] TEXT", "give an own message another text"),
    (
        "/del [#N]  /hide [#N]",
        "delete for everybody; for yourself",
    ),
    ("/pin [#N]  /unpin [#N]", "pin for everybody"),
    ("/status [#N]", "who got and who read an own message"),
    ("/read  /unread", "everything is read; show as unread"),
    ("/mute  /unmute", "no bell"),
    ("/archive  /unarchive", "put away"),
    ("/top  /untop", "on top of the list"),
    ("/presence STATE [TEXT]", "online, away, dnd or invisible"),
    ("/retry  /discard", "what was refused"),
    ("/connect", "try to connect now"),
    ("/quit", "end"),
    ("//TEXT", "a message that begins with /"),
];

/// Reads what was entered.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn parse(line: &str) -> Result<Entered, String> {
    let Some(command) = line.strip_prefix('/') else {
        return Ok(Entered::Message(line.to_owned()));
    };
    if command.starts_with('/') {
        return Ok(Entered::Message(command.to_owned()));
    }
    let (name, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    parse_command(name, rest.trim()).map(Entered::Command)
}

fn parse_command(name: &str, rest: &str) -> Result<Command, String> {
    let words = || rest.split_whitespace().map(str::to_owned);
    let needed = |what: &str| {
        if rest.is_empty() {
            Err(format!("/{name} needs {what}"))
        } else {
            Ok(rest.to_owned())
        }
    };
    let bare = |command| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(format!("/{name} stands alone"))
        }
    };
    let alone = |default| match which(rest) {
        (which, "") => Ok(which.unwrap_or(default)),
        _ => Err(format!("/{name} takes a place as #12, or nothing")),
    };
    let with_text = |default, what: &str| match which(rest) {
        (_, "") => Err(format!("/{name} needs {what}")),
        (which, text) => Ok((which.unwrap_or(default), text.to_owned())),
    };
    Ok(match name {
        "to" | "msg" | "query" => Command::To(needed("@handle, me, a conversation id or #title")?),
        "list" => bare(Command::List)?,
        "history" if rest.is_empty() => Command::History(HISTORY),
        "history" => match rest.parse() {
            Ok(count) if (1..=HISTORY_MAX).contains(&count) => Command::History(count),
            _ => return Err(format!("/history takes 1 to {HISTORY_MAX}")),
        },
        "search" => Command::Search(needed("words")?),
        "group" => group(rest)?,
        "add" | "invite" => {
            needed("handles")?;
            Command::Add(words().collect())
        }
        "remove" | "kick" => Command::Remove(needed("a handle")?),
        "leave" => Command::Leave(words().next()),
        "react" => {
            let (which, emoji) = with_text(Which::Newest, "an emoji")?;
            Command::React(which, emoji)
        }
        "reply" => {
            let (which, text) = with_text(Which::NewestOther, "a text")?;
            Command::Reply(which, text)
        }
        "edit" => {
            let (which, text) = with_text(Which::NewestOwn, "a text")?;
            Command::Edit(which, text)
        }
        "del" | "delete" => Command::Delete(alone(Which::NewestOwn)?),
        "hide" => Command::Hide(alone(Which::Newest)?),
        "pin" => Command::Pin(alone(Which::Newest)?, true),
        "unpin" => Command::Pin(alone(Which::Newest)?, false),
        "read" => bare(Command::Read)?,
        "unread" => bare(Command::Unread)?,
        "status" => Command::Status(alone(Which::NewestOwn)?),
        "who" | "members" | "names" => bare(Command::Who)?,
        "mute" => bare(Command::Mute(true))?,
        "unmute" => bare(Command::Mute(false))?,
        "archive" => bare(Command::Archive(true))?,
        "unarchive" => bare(Command::Archive(false))?,
        "top" => bare(Command::Top(true))?,
        "untop" => bare(Command::Top(false))?,
        "presence" => {
            needed("online, away, dnd or invisible")?;
            let (state, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Command::Presence(state.to_owned(), text.trim().to_owned())
        }
        "retry" => bare(Command::Retry)?,
        "discard" => bare(Command::Discard)?,
        "connect" => bare(Command::Connect)?,
        "help" => bare(Command::Help)?,
        "quit" | "exit" => bare(Command::Quit)?,
        _ => {
            let name = proto::quote::shown(name);
            return Err(format!("no command /{name}; /help lists them"));
        }
    })
}

/// A place at the beginning, as `#12`, and the rest.
fn which(text: &str) -> (Option<Which>, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let place = first.strip_prefix('#').and_then(|place| place.parse().ok());
    match place {
        Some(place) => (Some(Which::At(Seq::new(place))), rest.trim_start()),
        None => (None, text),
    }
}

/// The title goes to the first `@`.
fn group(rest: &str) -> Result<Command, String> {
    let at = rest
        .find(" @")
        .ok_or("/group needs a title and members: /group Lunch @bob @carol")?;
    let (title, members) = rest.split_at(at);
    let members = members.split_whitespace().map(str::to_owned).collect();
    Ok(Command::Group(title.trim().to_owned(), members))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        match parse(line) {
            Ok(Entered::Command(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_does_not_begin_with_a_slash_is_a_message() {
        for (line, text) in [
            ("hello", "hello"),
            ("//usr/bin", "/usr/bin"),
            (" /x", " /x"),
        ] {
            assert_eq!(parse(line), Ok(Entered::Message(text.to_owned())));
        }
    }

    #[test]
    fn commands_say_what_they_mean() {
        assert_eq!(command("/to @bob"), Command::To("@bob".into()));
        assert_eq!(command("/history"), Command::History(20));
        assert_eq!(
            command("/group Lunch today @bob @carol"),
            Command::Group("Lunch today".into(), vec!["@bob".into(), "@carol".into()])
        );
        assert_eq!(
            command("/react #12 👍"),
            Command::React(Which::At(Seq::new(12)), "👍".into())
        );
        assert_eq!(
            command("/reply 12 monkeys"),
            Command::Reply(Which::NewestOther, "12 monkeys".into())
        );
        assert_eq!(command("/del"), Command::Delete(Which::NewestOwn));
        assert_eq!(
            command("/presence away at lunch"),
            Command::Presence("away".into(), "at lunch".into())
        );
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for line in [
            "/nonsense",
            "/to",
            "/history 0",
            "/history many",
            "/group Lunch",
            "/react",
            "/edit",
            "/del 12",
            "/quit now",
            "/",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let said = parse("/\u{1b}[2J").unwrap_err();
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
