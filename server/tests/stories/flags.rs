//! The flag that shows a conversation as unread, changed on two devices at once.

use broker::codec::properties::PublishProperties;
use serde_json::json;

use super::harness::{Client, Login, Server};

/// Whether each of these is shown as unread.
fn flags(client: &mut Client, cids: &[String]) -> Vec<bool> {
    let mut flag = |cid: &String| {
        let told = client.call("conv.get", &json!({"cid": cid})).unwrap();
        told["unread_flag"] == true
    };
    cids.iter().map(&mut flag).collect()
}

#[test]
fn of_two_devices_at_once_the_one_that_was_stored_last_decides() {
    const GROUPS: usize = 150;
    let mut server = Server::dev();
    let connect = |server: &Server| Login::new("alice").connect(server.address());
    let mut devices = [(); 4].map(|()| connect(&server));
    let phone = &mut devices[0];
    let made = (0..GROUPS).map(|_| {
        let made = phone.call("conv.create", &json!({"title": "one of many"}));
        made.unwrap()["cid"].as_str().unwrap().to_owned()
    });
    let cids: Vec<String> = made.collect();
    for _ in 0..3 {
        for cid in &cids {
            let topic = format!("chat/c/{cid}/unread");
            for (client, flag) in devices.iter_mut().zip(["1", "0", "1", "0"]) {
                client.send_publish(&topic, flag, PublishProperties::default());
            }
        }
        for _ in &cids {
            for client in &mut devices {
                assert!(!client.next_answer().unwrap().reason.is_error());
            }
        }
    }
    let in_memory = flags(&mut devices[0], &cids);
    server.terminate();
    server.wait_for_exit();
    server.restart();
    let at_rest = flags(&mut connect(&server), &cids);
    let differ = in_memory.iter().zip(&at_rest).filter(|(a, b)| a != b);
    assert_eq!(differ.count(), 0, "of {GROUPS}");
}
