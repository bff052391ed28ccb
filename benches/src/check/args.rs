//! The command line of `check`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::schedule::Fault;

/// What is checked, and how it is broken.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// What the server is
    #[arg(long, value_enum, default_value = "mqchat")]
    pub(crate) adapter: Kind,
    /// The mqchat to be checked [default: the one beside this program]
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// With --adapter plain: the command that starts the server, in which {port}, {data} and {conf} are replaced
    #[arg(long, required_if_eq("adapter", "plain"))]
    pub(crate) start: Option<String>,
    /// With --start: a template of its configuration, in which {port} and {data} are replaced
    #[arg(long, requires = "start")]
    pub(crate) conf: Option<PathBuf>,
    /// From which the schedule of faults follows [default: by chance, and printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How long things are broken
    #[arg(long, default_value = "20")]
    pub(crate) seconds: u64,
    /// Instead: until so many processes were killed
    #[arg(long)]
    pub(crate) kills: Option<u64>,
    /// Which faults [default: all that the server can be expected to survive, and that can be had]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,
    /// Where histories, data and logs are kept; a new folder
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// Only judge the histories in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["start", "kills", "folder"])]
    pub(crate) verify: Option<PathBuf>,
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// mqchat and its promises
    Mqchat,
    /// Mosquitto, ordinary topics
    Mosquitto,
    /// Any MQTT broker, ordinary topics
    Plain,
}

/// A worker: only the checker itself starts it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    /// The folder of the campaign
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// Which one
    #[arg(long)]
    pub(crate) name: String,
}
