//! Users out of a password file of Mosquitto.

use std::fs;

use super::harness::{Login, Server};

/// Made by `mosquitto_passwd`, of `alice-secret` and `bob-secret`.
const FILE: &str = "\
alice:$7$101$21Jr9G9OKVDrLCtI$+vCLiQtxB6EXCAA7zS0tXRwfetWaT+YhEUwryn5RTji4n8y2JUIaQCzt3U8cQm7x1qNYn+9Vft8ZzNR+FMd7TA==
bob:$6$wan6KI04nuQhmCoy$dfuRsNIIpumSnjVKUr1jA1zb3owa0VAZBT6ZCJ+4Wn5+tMFxAWvlYFWQAY/YptkKr46k73b1o33tkQ9KbN/jgg==
";

/// Of `pässword zoë`.
const ZOE: &str = "zoe:$7$101$JE1xcFU8hdECn1l4$TNF5d3u7FbfACJ9XHMLaDd8H+HcQFojOGbefasZKAYSxXmTUBR0DTNhWzlw3NycESMCqiX7QfL1Q+PdQrb7Cww==";

#[test]
fn users_of_mosquitto_keep_their_passwords() {
    let mut server = Server::in_new_directory(|launch| launch);
    let file = server.data_dir().with_extension("passwords");
    let import = |server: &Server, text: &str| {
        fs::write(&file, text).unwrap();
        let output = server.command(&["user", "import", file.to_str().unwrap()], "");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let log_in = |server: &Server, users: &[(&str, &str)]| {
        for (user, password) in users {
            let login = Login::new(user);
            let wrong = login.clone().password("wrong");
            assert!(wrong.try_connect(server.address()).is_err());
            let right = login.password(password);
            right.connect(server.address()).disconnect();
        }
    };
    let (code, said) = import(&server, FILE);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 users imported"), "{said}");
    let users = [
        ("alice", "alice-secret"),
        ("bob", "bob-secret"),
        ("zoe", "pässword zoë"),
    ];
    // The second login is by the new hash.
    for _ in 0..2 {
        log_in(&server, &users[..2]);
    }
    let renewed = server.log().matches("is hashed by argon2id now").count();
    assert_eq!(renewed, 2, "once each");

    server.terminate();
    server.wait_for_exit();
    let broken = format!("{FILE}Carol:$7$1$a$b\ndave:plain\nerin:$7$101$x$y\n{ZOE}\n{ZOE}\n");
    let (code, said) = import(&server, &broken);
    assert_eq!(code, Some(1), "{said}");
    for expected in [
        "line 1: the handle alice is taken",
        "line 2: the handle bob is taken",
        "line 3: \"Carol\" is no handle",
        "line 4: no hash",
        "line 5: no hash",
        "line 7: zoe stands in line 6 already",
        "1 users imported",
        "6 of 7 lines were not imported",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    server.restart();
    log_in(&server, &users);
}
