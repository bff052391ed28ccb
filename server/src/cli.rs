//! The command line.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use proto::ids::{DeviceId, Handle};

use crate::acl;
use crate::admin::{self, IdWeek, Reply, Request};
use crate::config::{Config, Overrides};
use crate::{Failure, import, log, serve, time};

/// Longest password that is read, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4_096;

/// A chat server that speaks plain MQTT 3.1.1 and 5.
#[derive(Debug, Parser)]
#[command(name = "mqchat", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve {
        #[command(flatten)]
        place: Place,
        /// Address and port to listen on; port 0 takes a free one (see the file `listen` in the data directory)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// For trying out: loopback only; an unknown user is made at the first CONNECT, with the password given there
        #[arg(long)]
        dev: bool,
        /// Start although acknowledged data is missing from the store
        #[arg(long)]
        accept_loss: bool,
    },
    #[cfg(feature = "chat")]
    Chat(terminal::Options),
    /// Look after users; works while the server runs and while it does not
    User {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Look after tokens: what devices send as their password
    Token {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Look after the devices of users; works while the server runs and while it does not
    Device {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: DeviceCommand,
    },
    /// Look after the clients that are connected; the server must run
    Client {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Look after sessions, of clients that are connected or away; the server must run
    Session {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// Look after retained messages; the server must run
    Retained {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: RetainedCommand,
    },
    /// Change the log of a running server
    Log {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Look after what users have reported; works while the server runs and while it does not
    Report {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// Read what operators and moderators have done; works while the server runs and while it does not
    Audit {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Say that the wall clock is right: messages are removed for their age again, after the server found it too far ahead
    TrustClock {
        #[command(flatten)]
        place: Place,
    },
    /// Look after the store, while the server does not run (`compact`, `ids` and `drop-ids`: also while it does)
    Store {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Read the configuration and the ACL file, say what is wrong with them, and print the configuration with all defaults
    CheckConfig {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Place {
    /// The configuration file
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user
    Add {
        handle: Handle,
        /// Read the password from standard input, one line
        #[arg(long)]
        password_stdin: bool,
        /// No password: this user logs in with tokens only
        #[arg(long, conflicts_with = "password_stdin")]
        no_password: bool,
    },
    /// Change a password; connections of the user are closed
    Passwd {
        handle: Handle,
        /// Read the password from standard input, one line
        #[arg(long)]
        password_stdin: bool,
    },
    /// Make users out of a password file of Mosquitto; their passwords stay
    Import { file: PathBuf },
    /// List the users
    List,
    /// Remove a user; the messages stay, the handle rests for 90 days
    Remove { handle: Handle },
    /// Print what is known of a user and all messages of the user, an object of JSON on each line
    Export {
        /// The handle, or the id of a user who was removed
        user: String,
    },
    /// Make gone what a user wrote, in all conversations and in the files; the places of the messages stay
    Erase {
        /// The handle, or the id of a user who was removed
        user: String,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it: it is shown only now
    Issue {
        handle: Handle,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List the tokens of a user, without their secrets
    List { handle: Handle },
    /// End a token; connections of the user are closed
    Revoke { handle: Handle, id: String },
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// List the devices of a user: id, first and last seen, client id
    List { handle: Handle },
    /// End a device: its connection, session and cursors, and the token with which it logged in
    Revoke { handle: Handle, id: DeviceId },
}

#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// List them: who, from where, since when, and what waits for them
    List {
        /// Only those that do not keep up, the worst first
        #[arg(long)]
        slow: bool,
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
    /// Close a connection; the session stays, the will is published
    Kick { user: String, client_id: String },
}

#[derive(Debug, Subcommand)]
enum SessionCommand {
    /// List them
    List {
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
    /// End a session for good, with its connection, subscriptions and waiting messages
    Drop { user: String, client_id: String },
}

#[derive(Debug, Subcommand)]
enum RetainedCommand {
    /// List them: topic, QoS, size
    List {
        /// Which topics
        #[arg(default_value = "#")]
        filter: String,
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
    /// Clear those whose topics match; subscribers are not told
    Clear { filter: String },
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Choose what is logged, as `log.filter` does, until a SIGHUP or the next start
    Level { filter: String },
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// List them, the oldest first
    List {
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
    /// Show one, and the message as it is now
    Show { id: String },
    /// Forget one that is settled
    Close { id: String },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List it, the newest lines first
    List {
        /// Not before: 2026-11-21, 2026-11-21T05:40:00Z (UTC), or so long ago: 90m, 36h, 7d
        #[arg(long, value_name = "TIME", value_parser = time::parse)]
        since: Option<u64>,
        /// Before
        #[arg(long, value_name = "TIME", value_parser = time::parse)]
        until: Option<u64>,
        /// By this user, or about this user: the handle, or the id of one who was removed
        #[arg(long)]
        user: Option<String>,
        /// What begins like this: `user`, `user passwd`, `conv.`, `mod.reject`
        #[arg(long)]
        action: Option<String>,
        /// At most so many lines
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    #[command(flatten)]
    AtRest(AtRest),
    /// Count the message ids by which repeated messages are known, by weeks of the server's uptime
    Ids {
        /// An object of JSON on each line
        #[arg(long)]
        json: bool,
    },
    /// Forget the message ids of weeks that are over: what was sent then and comes again is stored a second time. Those before
    /// the last week go by themselves
    DropIds {
        /// The first week that stays, as `ids` counts them; the present one always does
        #[arg(long, value_name = "WEEK")]
        before: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AtRest {
    /// Give back the space of what was deleted
    Compact,
    /// Write everything to a file, for another engine or as a backup; the sessions to a second one, FILE.sessions
    Dump { file: PathBuf },
    /// Fill an empty store from a file that `dump` wrote, and from FILE.sessions beside it
    Load { file: PathBuf },
}

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve {
            place,
            listen,
            dev,
            accept_loss,
        } => {
            let overrides = Overrides {
                data_dir: place.data_dir,
                listen,
                dev,
                accept_loss,
            };
            let config = Config::read(place.config.as_deref(), &overrides)?;
            let log = log::start(&config.log)?;
            serve::run(&config, dev, log)
        }
        #[cfg(feature = "chat")]
        Command::Chat(options) => Ok(terminal::run(&options)?),
        Command::User { place, command } => {
            let config = place.config()?;
            command.run(&config)
        }
        Command::Token { place, command } => {
            let config = place.config()?;
            admin::request(&config, [command.request()], print_reply)
        }
        Command::Device { place, command } => {
            let config = place.config()?;
            admin::request(&config, [command.request()], print_reply)
        }
        Command::Client { place, command } => {
            let (request, json) = command.request();
            ask(&place, request, json)
        }
        Command::Session { place, command } => {
            let (request, json) = command.request();
            ask(&place, request, json)
        }
        Command::Retained { place, command } => {
            let (request, json) = command.request();
            ask(&place, request, json)
        }
        Command::Log { place, command } => {
            let LogCommand::Level { filter } = command;
            ask(&place, Request::LogLevel { filter }, false)
        }
        Command::Report { place, command } => {
            let (request, json) = command.request();
            ask(&place, request, json)
        }
        Command::Audit { place, command } => {
            let (request, json) = command.request();
            ask(&place, request, json)
        }
        Command::TrustClock { place } => ask(&place, Request::ClockTrust, false),
        Command::Store { place, command } => {
            let config = place.config()?;
            match command {
                StoreCommand::Ids { json } => ids(&config, json),
                StoreCommand::DropIds { before } => {
                    admin::request(&config, [Request::StoreDropIds { before }], print_reply)
                }
                StoreCommand::AtRest(AtRest::Compact) if admin::is_running(&config) => {
                    admin::request(&config, [Request::StoreReclaim], print_reply)
                }
                StoreCommand::AtRest(command) => print(&crate::offline::run(command, &config)?),
            }
        }
        Command::CheckConfig { config } => {
            let config = Config::read(config.as_deref(), &Overrides::default())?;
            acl::read(&config.server.acl_file)?;
            crate::filter::build(&config.filter)?;
            let text =
                toml::to_string(&config).map_err(|error| Failure::Usage(error.to_string()))?;
            print(&text)
        }
    }
}

impl Place {
    fn config(&self) -> Result<Config, Failure> {
        let overrides = Overrides {
            data_dir: self.data_dir.clone(),
            ..Overrides::default()
        };
        Config::read(self.config.as_deref(), &overrides)
    }
}

impl UserCommand {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let request = match self {
            Self::Add {
                handle,
                password_stdin,
                no_password,
            } => {
                let password = if no_password {
                    None
                } else {
                    Some(read_password(password_stdin)?)
                };
                Request::UserAdd { handle, password }
            }
            Self::Passwd {
                handle,
                password_stdin,
            } => Request::UserPasswd {
                handle,
                password: read_password(password_stdin)?,
            },
            Self::Import { file } => return import::run(config, &file, print),
            Self::List => Request::UserList { after: None },
            Self::Remove { handle } => Request::UserRemove { handle },
            Self::Export { user } => Request::UserExport { user, next: None },
            Self::Erase { user } => return erase(config, user),
        };
        admin::request(config, [request], print_reply)
    }
}

/// All pages of a count, added up.
fn ids(config: &Config, json: bool) -> Result<(), Failure> {
    let mut sums: Vec<IdWeek> = Vec::new();
    let mut all = None;
    admin::request(config, [Request::StoreIds { after: None }], |reply| {
        let Reply::Ids { weeks, next } = reply else {
            return print_reply(reply);
        };
        for week in weeks {
            match sums.last_mut() {
                Some(sum) if sum.week == week.week => sum.add(week),
                _ => sums.push(week.clone()),
            }
        }
        if next.is_none() {
            all = Some(std::mem::take(&mut sums));
        }
        Ok(())
    })?;
    let weeks = all.unwrap_or_default();
    print_as(&Reply::Ids { weeks, next: None }, json)
}

/// All pages of an erasure, then the files.
fn erase(config: &Config, user: String) -> Result<(), Failure> {
    let mut sum = [0; 4];
    let pages = Request::UserErase { user, next: None };
    admin::request(config, [pages, Request::StoreReclaim], |reply| {
        let Reply::Erased {
            conversations,
            messages,
            reactions,
            reports,
            next,
        } = reply
        else {
            return print_reply(reply);
        };
        let reports_of_page = u64::try_from(*reports).unwrap_or(u64::MAX);
        let page = [*conversations, *messages, *reactions, reports_of_page];
        for (sum, of_page) in sum.iter_mut().zip(page) {
            *sum += of_page;
        }
        if next.is_some() {
            return Ok(());
        }
        let [conversations, messages, reactions, reports] = sum;
        print_reply(&Reply::Erased {
            conversations,
            messages,
            reactions,
            reports: usize::try_from(reports).unwrap_or(usize::MAX),
            next: None,
        })
    })
}

impl TokenCommand {
    fn request(self) -> Request {
        match self {
            Self::Issue { handle, label } => Request::TokenIssue { handle, label },
            Self::List { handle } => Request::TokenList { handle },
            Self::Revoke { handle, id } => Request::TokenRevoke { handle, id },
        }
    }
}

impl DeviceCommand {
    fn request(self) -> Request {
        match self {
            Self::List { handle } => Request::DeviceList { handle },
            Self::Revoke { handle, id } => Request::DeviceRevoke { handle, id },
        }
    }
}

impl ClientCommand {
    /// And whether it is to be answered as JSON.
    fn request(self) -> (Request, bool) {
        match self {
            Self::List { slow: true, json } => (Request::ClientSlow, json),
            Self::List { slow: false, json } => (Request::ClientList { after: None }, json),
            Self::Kick { user, client_id } => (Request::ClientKick { user, client_id }, false),
        }
    }
}

impl SessionCommand {
    fn request(self) -> (Request, bool) {
        match self {
            Self::List { json } => (Request::SessionList { after: None }, json),
            Self::Drop { user, client_id } => (Request::SessionDrop { user, client_id }, false),
        }
    }
}

impl RetainedCommand {
    fn request(self) -> (Request, bool) {
        match self {
            Self::List { filter, json } => {
                let after = None;
                (Request::RetainedList { filter, after }, json)
            }
            Self::Clear { filter } => (Request::RetainedClear { filter }, false),
        }
    }
}

impl ReportCommand {
    fn request(self) -> (Request, bool) {
        match self {
            Self::List { json } => (Request::ReportList { after: None }, json),
            Self::Show { id } => (Request::ReportShow { id }, false),
            Self::Close { id } => (Request::ReportClose { id }, false),
        }
    }
}

impl AuditCommand {
    fn request(self) -> (Request, bool) {
        let Self::List {
            since,
            until,
            user,
            action,
            limit,
            json,
        } = self;
        let request = Request::AuditList {
            since_ms: since,
            until_ms: until,
            user,
            action,
            limit,
            before: None,
        };
        (request, json)
    }
}

/// Asks the server that runs, and prints what it answers, page by page.
fn ask(place: &Place, request: Request, json: bool) -> Result<(), Failure> {
    admin::request(&place.config()?, [request], |reply| print_as(reply, json))
}

/// A password from the terminal, without echo and twice, or one line of standard input. Never from the command line,
/// where everybody on the machine could read it.
fn read_password(from_stdin: bool) -> Result<String, Failure> {
    if from_stdin || !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .take(PASSWORD_BYTES_MAX)
            .read_line(&mut line)
            .map_err(Failure::io("the password cannot be read"))?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let ask = |prompt| {
        rpassword::prompt_password(prompt).map_err(Failure::io("the password cannot be read"))
    };
    let password = ask("Password: ")?;
    if ask("Again: ")? != password {
        return Err(Failure::Usage("the two passwords differ".into()));
    }
    Ok(password)
}

fn print_as(reply: &Reply, json: bool) -> Result<(), Failure> {
    if !json {
        return print_reply(reply);
    }
    let told = reply.as_json().map_err(std::io::Error::other);
    print(&told.map_err(Failure::io("the answer"))?)
}

fn print_reply(reply: &Reply) -> Result<(), Failure> {
    print(&reply.to_string())
}

/// To standard output; a reader who has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Io {
            what: "standard output".into(),
            error,
        }),
        _ => Ok(()),
    }
}
