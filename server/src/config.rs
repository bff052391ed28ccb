//! The configuration: defaults, then the file, then the environment. What nobody knows is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chat_plugin::store::{StoreError, StoreOptions};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::Failure;
use crate::log::LogConfig;
use crate::monitor::MonitorConfig;

/// Variables of the environment that override an option: `MQCHAT_BROKER__LISTEN` stands for `listen` in `[broker]`.
const PREFIX: &str = "MQCHAT_";

const SECTIONS: [&str; 8] = [
    "server", "broker", "chat", "filter", "accounts", "store", "log", "monitor",
];

/// Everything that can be set. `config/mqchat.toml` explains each option.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Of the process.
    pub(crate) server: ServerConfig,
    /// Of MQTT.
    pub(crate) broker: broker::Config,
    /// Of the content filter.
    pub(crate) filter: crate::filter::FilterConfig,
    /// Of the chat.
    pub(crate) chat: chat_plugin::config::Config,
    /// Of logins.
    pub(crate) accounts: chat_plugin::accounts::AccountsConfig,
    /// Of the store.
    pub(crate) store: chat_plugin::store::StoreOptions,
    /// Of the log.
    pub(crate) log: LogConfig,
    /// Of metrics and health.
    pub(crate) monitor: MonitorConfig,
}

/// Options of the process: the section `[server]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerConfig {
    /// Everything that is kept: the store, the admin socket, the address listened on.
    pub(crate) data_dir: PathBuf,
    /// Threads that serve connections; 0: one per core. With 1 they are served in the order in which they became ready.
    pub(crate) worker_threads: usize,
    /// Topics outside `chat/` that no rule of the ACL file concerns: open to every user, or closed.
    pub(crate) ordinary_topics: OrdinaryTopics,
    /// The ACL file; empty: no rules. Relative to the directory of the configuration file, if there is one.
    pub(crate) acl_file: PathBuf,
    /// End the process (exit code 3) when a write could not be made durable, so that a supervisor restarts it.
    pub(crate) exit_on_poison: bool,
}

/// Who may use topics outside `chat/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrdinaryTopics {
    /// Every user.
    Open,
    /// Nobody.
    Closed,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("mqchat-data"),
            worker_threads: 0,
            ordinary_topics: OrdinaryTopics::Closed,
            acl_file: PathBuf::new(),
            exit_on_poison: true,
        }
    }
}

/// What the command line says; it wins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) dev: bool,
    pub(crate) accept_loss: bool,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the option that is wrong.
    pub(crate) fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Failure> {
        let text = match file {
            None => String::new(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
        };
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| Failure::Usage(format!("{PREFIX}{name} is not UTF-8")))?;
            variables.push((name.to_owned(), value));
        }
        let origin = file.map(|file| format!("{}: ", file.display()));
        let mut config = Self::parse(&text, variables.into_iter())
            .map_err(|error| Failure::Usage(error.told(&origin.unwrap_or_default())))?;
        config.apply(overrides)?;
        if let Some(directory) = file.and_then(Path::parent)
            && !config.server.acl_file.as_os_str().is_empty()
        {
            config.server.acl_file = directory.join(&config.server.acl_file);
        }
        if let Some(directory) = file.and_then(Path::parent)
            && !config.filter.words_file.as_os_str().is_empty()
        {
            config.filter.words_file = directory.join(&config.filter.words_file);
        }
        Ok(config)
    }

    /// Each variable is set by itself, so that what is wrong then is the variable's.
    fn parse(
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ParseError> {
        let in_file = |error: toml::de::Error| ParseError::File(error.to_string());
        toml::from_str::<Self>(text).map_err(in_file)?;
        let mut table: Table = text.parse().map_err(in_file)?;
        for (name, value) in variables {
            let wrong = |why: &str| {
                let name = name.to_uppercase();
                ParseError::Variable(format!("{PREFIX}{name}: {why}"))
            };
            let name = name.to_lowercase();
            if let Some((section, option)) = name.split_once("__") {
                set(&mut table, section, option, &value).map_err(|why| wrong(&why))?;
                table.clone().try_into::<Self>().map_err(|error| {
                    let said = error.message().replace("unknown field", "unknown option");
                    wrong(said.lines().next().unwrap_or_default())
                })?;
            } else if SECTIONS
                .iter()
                .any(|section| name.starts_with(&format!("{section}_")))
            {
                return Err(wrong("two underscores stand between section and option"));
            }
        }
        table.try_into().map_err(in_file)
    }

    fn apply(&mut self, overrides: &Overrides) -> Result<(), Failure> {
        if let Some(data_dir) = &overrides.data_dir {
            self.server.data_dir.clone_from(data_dir);
        }
        if let Some(listen) = overrides.listen {
            self.broker.listen = Some(listen);
        }
        if overrides.dev {
            self.server.ordinary_topics = OrdinaryTopics::Open;
            let further = self.broker.listeners.iter();
            let mut addresses = further
                .filter_map(|listener| listener.address)
                .chain(self.broker.listen);
            if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
                return Err(Failure::Usage(format!(
                    "--dev lets anybody in, so it listens on loopback only, not on {address}"
                )));
            }
        }
        self.store.accept_loss = overrides.accept_loss;
        let wrong = |section, error: &dyn ToString| {
            Failure::Usage(format!("{section}: {}", error.to_string()))
        };
        self.broker
            .check()
            .map_err(|error| wrong("broker", &error))?;
        self.chat.check().map_err(|error| wrong("chat", &error))?;
        self.accounts
            .check()
            .map_err(|error| wrong("accounts", &error))?;
        self.log.check().map_err(|error| wrong("log", &error))
    }

    /// How to open the store: its directory is in the data directory.
    pub(crate) fn store_options(&self) -> StoreOptions {
        StoreOptions {
            directory: self.server.data_dir.join(&self.store.directory),
            ..self.store.clone()
        }
    }

    /// Says which store it is about.
    pub(crate) fn store_failure(&self) -> impl FnOnce(StoreError) -> Failure {
        let directory = self.store_options().directory;
        |error| Failure::Store { directory, error }
    }
}

/// Where the configuration makes no sense.
#[derive(Debug)]
enum ParseError {
    File(String),
    Variable(String),
}

impl ParseError {
    /// `origin` stands before what is wrong with the file.
    fn told(self, origin: &str) -> String {
        match self {
            Self::File(why) => format!("{origin}{why}"),
            Self::Variable(why) => why,
        }
    }
}

/// Sets one option from the environment: what reads as a TOML value is one, anything else is a text.
fn set(table: &mut Table, section: &str, option: &str, value: &str) -> Result<(), String> {
    let parsed = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let section_of = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(options) = section_of else {
        return Err("not a section".into());
    };
    options.insert(option.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../config/mqchat.toml");
    const DEV: &str = include_str!("../../config/dev.toml");
    const CONFORMANCE: &str = include_str!("../../config/conformance.toml");

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        Config::parse(
            text,
            variables
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        )
        .map_err(|error| error.told("the file: "))
    }

    #[test]
    fn the_shipped_file_tells_every_option_with_its_default() {
        let defaults = Table::try_from(Config::default()).unwrap();
        assert_eq!(SHIPPED.parse::<Table>().unwrap(), defaults);
        assert_eq!(parse(SHIPPED, &[]).unwrap(), Config::default());
    }

    #[test]
    fn the_files_for_development_and_conformance_are_valid() {
        for text in [DEV, CONFORMANCE] {
            let mut config = parse(text, &[]).unwrap();
            config.apply(&Overrides::default()).unwrap();
        }
    }

    #[test]
    fn the_acl_file_lies_beside_the_file_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mqchat.toml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let config = Config::read(Some(&file), &Overrides::default()).unwrap();
            config.server.acl_file
        };
        let expected = directory.path().join("acl.toml");
        assert_eq!(read("[server]\nacl_file = \"acl.toml\""), expected);
        assert_eq!(
            read("[server]\nacl_file = \"/etc/acl.toml\""),
            Path::new("/etc/acl.toml")
        );
        assert_eq!(read(""), Path::new(""));
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = Config::read(None, &Overrides::default()).unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text, &[]).unwrap(), config);
        let expected = config.server.data_dir.join("store");
        assert_eq!(config.store_options().directory, expected);
    }

    #[test]
    fn listeners_are_read_and_printed() {
        let text = r#"
            [broker]
            listen = "off"
            [[broker.listeners]]
            protocol = "tls"
            address = "0.0.0.0:8883"
            certificate = "cert.pem"
            key = "key.pem"
            client_certificates = "optional"
            client_ca = "clients.pem"
            [[broker.listeners]]
            protocol = "unix"
            socket = "mqtt.sock"
            mode = 0o600
            [[broker.listeners]]
            protocol = "ws"
            address = "127.0.0.1:8083"
            origins = ["https://chat.example.com"]
            proxy_protocol = true
            proxy_sources = ["10.0.0.0/8", "::1"]
        "#;
        let mut config = parse(text, &[]).unwrap();
        config.apply(&Overrides::default()).unwrap();
        assert_eq!(
            (config.broker.listen, config.broker.listeners.len()),
            (None, 3)
        );
        assert_eq!(config.broker.listeners[1].mode, 0o600);
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(parse(&printed, &[]).unwrap(), config);
        let inline = "[{protocol = \"tcp\", address = \"127.0.0.1:1\"}]";
        let config = parse("", &[("BROKER__LISTENERS", inline)]).unwrap();
        assert_eq!(config.broker.listeners.len(), 1);
        let misspelt = "[[broker.listeners]]\nprotocol = \"tcp\"\nadress = \"127.0.0.1:1\"";
        assert!(parse(misspelt, &[]).unwrap_err().contains("adress"));
    }

    #[test]
    fn unknown_options_are_refused() {
        let error = parse("[broker]\nlistne = \"127.0.0.1:1883\"", &[]).unwrap_err();
        assert!(error.contains("listne"), "{error}");
        assert!(parse("[brocker]", &[]).is_err());
        assert!(error.starts_with("the file: "), "{error}");
    }

    #[test]
    fn what_is_wrong_in_the_environment_is_told_with_the_variable() {
        for (name, value, said) in [
            (
                "BROKER__LISTNE",
                "x",
                "MQCHAT_BROKER__LISTNE: unknown option `listne`",
            ),
            (
                "BROCKER__LISTEN",
                "x",
                "MQCHAT_BROCKER__LISTEN: unknown option `brocker`",
            ),
            ("BROKER__LISTEN", "x", "MQCHAT_BROKER__LISTEN: neither"),
            (
                "BROKER__RECEIVE_MAXIMUM",
                "many",
                "MQCHAT_BROKER__RECEIVE_MAXIMUM: invalid type",
            ),
            (
                "BROKER_LISTEN",
                "127.0.0.1:1",
                "MQCHAT_BROKER_LISTEN: two underscores",
            ),
        ] {
            let good = ("LOG__FORMAT", "json");
            let error = parse("[chat]", &[good, (name, value)]).unwrap_err();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }

    #[test]
    fn every_section_is_known_to_the_environment() {
        let mut sections: Vec<_> = SECTIONS.map(str::to_owned).into();
        sections.sort();
        let defaults = Table::try_from(Config::default()).unwrap();
        assert_eq!(sections, defaults.keys().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn values_out_of_range_are_refused_with_their_section() {
        for (text, said) in [
            ("[broker]\nreceive_maximum = 0", "broker: receive_maximum"),
            ("[chat]\njson_depth_max = 1000", "chat: json_depth_max"),
            ("[accounts]\nargon2_passes = 0", "accounts: argon2_passes"),
            (
                "[log]\nfilter = \"info,broker=loud\"",
                "log: filter: `broker=loud`",
            ),
            (
                "[[broker.listeners]]\nprotocol = \"unix\"",
                "broker: listeners, number 1: a unix listener needs socket",
            ),
        ] {
            let mut config = parse(text, &[]).unwrap();
            let refused = config.apply(&Overrides::default()).unwrap_err();
            assert!(refused.to_string().starts_with(said), "{refused}");
        }
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = parse(
            "[broker]\nlisten = \"127.0.0.1:1\"\nkeep_alive_max_s = 5",
            &[
                ("BROKER__LISTEN", "127.0.0.1:2"),
                ("CHAT__GROUP_MEMBERS_MAX", "7"),
                ("OTHER", "x"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.broker.listen, Some(([127, 0, 0, 1], 2).into()));
        assert_eq!(
            (
                config.broker.keep_alive_max_s,
                config.chat.group_members_max
            ),
            (5, 7)
        );
    }

    #[test]
    fn development_mode_stays_on_this_machine() {
        let overrides = Overrides {
            dev: true,
            listen: Some(([0, 0, 0, 0], 1883).into()),
            ..Overrides::default()
        };
        let refused = Config::default().apply(&overrides).unwrap_err();
        assert!(refused.to_string().contains("loopback"), "{refused}");
        let text = "[[broker.listeners]]\nprotocol = \"ws\"\naddress = \"0.0.0.0:8083\"";
        let mut config = parse(text, &[]).unwrap();
        let overrides = Overrides {
            dev: true,
            ..Overrides::default()
        };
        let refused = config.apply(&overrides).unwrap_err();
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }
}
