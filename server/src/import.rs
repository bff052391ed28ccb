//! `mqchat user import`: users out of a password file of Mosquitto, line by line.

use std::collections::HashMap;
use std::path::Path;

use proto::ids::Handle;

use crate::Failure;
use crate::admin::{self, ImportedUser, Reply, Request};
use crate::config::Config;

/// Imports what can be imported; `print` is told how many that were, and each line that could not.
///
/// # Errors
/// [`Failure::Refused`] if there are such lines, or what kept all the rest from being imported.
pub(crate) fn run(
    config: &Config,
    file: &Path,
    print: impl Fn(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(Failure::io(file.display().to_string()))?;
    let (users, mut refused) = parse(&text);
    let found = users.len() + refused.len();
    let requests = users.chunks(USERS_AT_ONCE).map(|users| {
        let users = users.to_vec();
        Request::UserImport { users }
    });
    admin::request(config, requests, |reply| {
        if let Reply::Imported { refused: more } = reply {
            refused.extend(more.iter().cloned());
        }
        Ok(())
    })?;
    refused.sort_unstable();
    let lines = refused
        .iter()
        .map(|(line, why)| format!("line {line}: {why}\n"));
    let imported = found - refused.len();
    print(&format!(
        "{}{imported} users imported\n",
        lines.collect::<String>()
    ))?;
    if refused.is_empty() {
        return Ok(());
    }
    let refused = refused.len();
    Err(Failure::Refused(format!(
        "{refused} of {found} lines were not imported"
    )))
}

/// What a file says, and what is wrong with lines of it.
fn parse(text: &str) -> (Vec<ImportedUser>, Vec<(usize, String)>) {
    let mut users = Vec::new();
    let mut refused = Vec::new();
    let mut seen = HashMap::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim_end)) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match parse_line(text) {
            Err(why) => refused.push((line, why)),
            Ok((handle, hash)) => {
                if let Some(first) = seen.insert(handle.to_string(), line) {
                    refused.push((line, format!("{handle} stands in line {first} already")));
                } else {
                    users.push(ImportedUser { line, handle, hash });
                }
            }
        }
    }
    (users, refused)
}

fn parse_line(text: &str) -> Result<(Handle, String), String> {
    let (name, hash) = text.split_once(':').ok_or("not NAME:HASH")?;
    let handle = name.parse().map_err(|_| {
        format!("{name:?} is no handle: 1 to 50 of a-z, 0-9, dot, underscore and hyphen")
    })?;
    if !hash.starts_with('$') || hash.len() > HASH_BYTES_MAX {
        return Err("no hash that mosquitto_passwd makes ($7$ or $6$)".into());
    }
    Ok((handle, hash.to_owned()))
}

/// Users in one request: so many fit into it.
const USERS_AT_ONCE: usize = 32;
const HASH_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_user_or_a_reason() {
        let text = "# made in 2019\n\nalice:$7$1$a$b\nAlice:$7$1$a$b\nbob:secret\nalice:$6$a$b\nnobody\r\ncarol:$6$a$b\r\n";
        let (users, refused) = parse(text);
        let users: Vec<_> = users
            .iter()
            .map(|user| (user.line, user.handle.as_str(), user.hash.as_str()))
            .collect();
        assert_eq!(users, [(3, "alice", "$7$1$a$b"), (8, "carol", "$6$a$b")]);
        let lines: Vec<_> = refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6, 7]);
        assert!(refused[0].1.contains("\"Alice\" is no handle"));
        assert_eq!(refused[2].1, "alice stands in line 3 already");
    }

    #[test]
    fn control_characters_of_a_name_do_not_reach_the_terminal() {
        let (_, refused) = parse("\u{1b}[2Jx:$7$1$a$b");
        assert!(!refused[0].1.contains('\u{1b}'), "{refused:?}");
    }
}
