//! Any MQTT broker: publishers at QoS 1 and 2, and subscribers with kept sessions.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::{Adapter, Cast, Place};
use crate::check::history::Kind;
use crate::check::schedule::Fault;
use crate::check::world::Part;
use crate::error::BenchError;

/// A broker that is started by a command line.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) name: String,
    /// Words with blanks between them, in which `{port}`, `{data}` and `{conf}` are replaced.
    pub(crate) start: String,
    /// The configuration to be written, if it wants one.
    pub(crate) template: Option<String>,
    /// Of all users, each called as its worker; without one nobody logs in.
    pub(crate) password: Option<String>,
}

impl Plain {
    /// Mosquitto, told to write down what it has, every second that something changed: it knows nothing safer.
    pub(crate) fn mosquitto() -> Self {
        Self {
            name: "mosquitto".to_owned(),
            start: "mosquitto -c {conf}".to_owned(),
            template: Some(MOSQUITTO.to_owned()),
            password: None,
        }
    }

    /// Another one, with the template in this file.
    pub(crate) fn new(
        start: &str,
        conf: Option<&PathBuf>,
        password: Option<String>,
    ) -> Result<Self, BenchError> {
        let read =
            |path: &PathBuf| fs::read_to_string(path).map_err(|error| BenchError::at(path, error));
        Ok(Self {
            name: start.split(' ').next().unwrap_or_default().to_owned(),
            start: start.to_owned(),
            template: conf.map(read).transpose()?,
            password,
        })
    }
}

impl Adapter for Plain {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn faults(&self) -> Vec<Fault> {
        vec![
            Fault::Kill,
            Fault::Stop,
            Fault::Restart,
            Fault::Cut,
            Fault::Mute,
            Fault::Client,
        ]
    }

    fn command(&self, place: &Place) -> Result<Command, BenchError> {
        let conf = place.folder.join("server.conf");
        let fill = |text: &str| {
            text.replace("{port}", &place.port.to_string())
                .replace("{data}", &place.data.display().to_string())
                .replace("{conf}", &conf.display().to_string())
        };
        if let Some(template) = &self.template {
            let written = fs::write(&conf, fill(template));
            written.map_err(|error| BenchError::at(&conf, error))?;
        }
        let words = fill(&self.start);
        let mut words = words.split_whitespace();
        let Some(program) = words.next() else {
            return Err(BenchError::Check("--start is empty".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(words);
        Ok(command)
    }

    async fn prepare(&self, _: SocketAddr, run: u32) -> Result<Cast, BenchError> {
        let topic = |qos: u8| format!("mqcheck/{run:08x}/{qos}");
        let part = |name: &str, mqtt: u8, qos: u8| Part {
            name: name.to_owned(),
            password: self.password.clone(),
            kind: Kind::Plain,
            mqtt,
            qos,
            to: Vec::new(),
            listen: Vec::new(),
            removes: None,
        };
        let publisher = |name, mqtt, qos| Part {
            to: vec![topic(qos)],
            ..part(name, mqtt, qos)
        };
        let subscriber = |name, mqtt| Part {
            listen: vec![topic(1), topic(2)],
            ..part(name, mqtt, 0)
        };
        Ok(Cast {
            parts: vec![
                publisher("pub1", 5, 1),
                publisher("pub2", 5, 2),
                publisher("pub3", 3, 1),
                subscriber("sub1", 5),
                subscriber("sub2", 3),
            ],
            ..Cast::default()
        })
    }
}

const MOSQUITTO: &str = "\
listener {port} 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location {data}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 0
log_dest stderr
";
