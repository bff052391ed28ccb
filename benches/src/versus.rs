//! `--vs`: the same scenario on two brokers alternately, so that a change of the machine's load meets both.
//!
//! Rounds go A B, B A, A B …: of an even number of rounds, who comes first has no advantage. What counts is the ratio, and how much it
//! differs from round to round.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use broker::codec::packet::Version;
use serde_json::{Map, Value as Json, json};

use crate::args::{Target, Topics, parse_version};
use crate::error::BenchError;
use crate::report::{Latency, Report, line, main_figures, short};

/// The other broker.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Another broker")]
pub(crate) struct VersusArgs {
    /// Address of another broker: the same on both alternately
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) vs: Option<SocketAddr>,
    /// Its process [default: its CPU time and memory are not reported]
    #[arg(long, global = true, requires = "vs")]
    vs_server_pid: Option<u32>,
    /// Its protocol version [default: as --mqtt]
    #[arg(long, global = true, requires = "vs", value_parser = parse_version)]
    vs_mqtt: Option<Version>,
    /// Its user for all connections [default: as --user or --user-prefix]
    #[arg(
        long,
        global = true,
        requires = "vs",
        conflicts_with = "vs_user_prefix"
    )]
    vs_user: Option<String>,
    /// Its users, one for each connection [default: as --user or --user-prefix]
    #[arg(long, global = true, requires = "vs")]
    vs_user_prefix: Option<String>,
    /// The password of its users [default: as --password]
    #[arg(
        long,
        global = true,
        env = "MQCHAT_BENCH_VS_PASSWORD",
        hide_env_values = true
    )]
    vs_password: Option<String>,
    /// Where to publish there: ordinary topics and clean sessions against conversations, or the reverse [default: the same]
    #[arg(long, global = true, requires = "vs", value_enum)]
    pub(crate) vs_topics: Option<Topics>,
    /// What the two are called in the report
    #[arg(long, global = true, requires = "vs", value_names = ["A", "B"], num_args = 2)]
    vs_names: Vec<String>,
    /// How often each is measured
    #[arg(long, global = true, requires = "vs", default_value = "4")]
    pub(crate) rounds: NonZeroU16,
}

/// The other broker, and as whom.
pub(crate) fn other(target: &Target, args: &VersusArgs) -> Option<Target> {
    let mut other = target.clone();
    other.addr = args.vs?;
    other.server_pid = args.vs_server_pid;
    other.mqtt = args.vs_mqtt.unwrap_or(target.mqtt);
    if args.vs_user.is_some() || args.vs_user_prefix.is_some() {
        other.user.clone_from(&args.vs_user);
        other.user_prefix.clone_from(&args.vs_user_prefix);
    }
    if args.vs_password.is_some() {
        other.password.clone_from(&args.vs_password);
    }
    Some(other)
}

/// All rounds.
#[derive(Clone, Debug)]
pub(crate) struct Versus {
    /// Of A and B.
    pub(crate) names: [String; 2],
    pub(crate) rounds: Vec<Round>,
}

/// Both, once.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// B came first.
    pub(crate) is_turned: bool,
    pub(crate) sides: [Report; 2],
}

/// A figure of both.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) figure: String,
    pub(crate) medians: [f64; 2],
    /// Of the medians, A divided by B.
    pub(crate) ratio: f64,
    /// The least and the greatest of a round.
    pub(crate) range: [f64; 2],
}

/// Measures both in turn; `measure` is given the round, and whether it is B.
pub(crate) async fn run<F>(
    name: &'static str,
    (targets, args): ([&Target; 2], &VersusArgs),
    mut measure: impl FnMut(u16, bool) -> F,
) -> Result<Report, BenchError>
where
    F: Future<Output = Result<Report, BenchError>>,
{
    let mut rounds = Vec::new();
    let mut failed = None;
    for number in 1..=args.rounds.get() {
        match round(number, &mut measure).await {
            Ok(round) => rounds.push(round),
            Err(error) if rounds.is_empty() => return Err(error),
            Err(error) => {
                failed = Some(format!("round {number} has no result: {error}"));
                break;
            }
        }
    }
    let names = match args.vs_names.as_slice() {
        [a, b] => [a.clone(), b.clone()],
        _ => targets.map(|target| target.addr.to_string()),
    };
    let versus = Versus { names, rounds };
    let mut report = Report::new(name);
    for (round, number) in versus.rounds.iter().zip(1..) {
        for (side, name) in round.sides.iter().zip(&versus.names) {
            for fault in side.faults() {
                report.fault_if(true, fault);
                report.note(format!("round {number}, {name}: {fault}"));
            }
            for note in side.notes() {
                report.note(format!("round {number}, {name}: {note}"));
            }
        }
    }
    if versus.rounds.len() % 2 == 1 {
        report.note("an odd number of rounds: A came first once more than B".to_owned());
    }
    if let Some(failed) = failed {
        report.note(failed);
        report.fault_if(true, "not all rounds have a result");
    }
    let mut sides = versus.rounds.iter().flat_map(|round| &round.sides);
    let first = sides.next().and_then(Report::all_is_well);
    if let Some(checked) = first.filter(|it| sides.all(|side| side.all_is_well() == Some(it))) {
        report.checks(checked);
    }
    report.versus = Some(versus);
    Ok(report)
}

async fn round<F>(
    number: u16,
    measure: &mut impl FnMut(u16, bool) -> F,
) -> Result<Round, BenchError>
where
    F: Future<Output = Result<Report, BenchError>>,
{
    let is_turned = number.is_multiple_of(2);
    let first = measure(number, is_turned).await?;
    let second = measure(number, !is_turned).await?;
    let sides = if is_turned {
        [second, first]
    } else {
        [first, second]
    };
    Ok(Round { is_turned, sides })
}

impl Versus {
    /// Of searches, each side's figures are of a rate of its own: these cannot be compared.
    fn is_search(&self) -> bool {
        let mut sides = self.rounds.iter().flat_map(|round| &round.sides);
        sides.any(|side| side.steps.is_some())
    }

    /// Every figure that both have in all rounds, but for what was asked for.
    pub(crate) fn compared(&self) -> Vec<Compared> {
        if self.is_search() {
            return self.compare("saturation_per_s").into_iter().collect();
        }
        let names = self.rounds.first().map(|round| round.sides[0].lines());
        let names = names.unwrap_or_default().iter().map(|(name, _)| name);
        let names = names.filter(|name| !SETTINGS.contains(&name.as_str()));
        names.filter_map(|name| self.compare(name)).collect()
    }

    /// One figure, if both have it in all rounds.
    pub(crate) fn compare(&self, figure: &str) -> Option<Compared> {
        let both = |round: &Round| {
            let [a, b] = &round.sides;
            Some([a.figure(figure)?, b.figure(figure)?])
        };
        let rounds = self.rounds.iter().map(both).collect::<Option<Vec<_>>>()?;
        let medians = [
            median(rounds.iter().map(|[a, _]| *a).collect()),
            median(rounds.iter().map(|[_, b]| *b).collect()),
        ];
        let ratios = rounds.iter().map(|[a, b]| a / b);
        let range = ratios.fold(
            [f64::INFINITY, f64::NEG_INFINITY],
            |[least, most], ratio| [least.min(ratio), most.max(ratio)],
        );
        Some(Compared {
            figure: figure.to_owned(),
            ratio: medians[0] / medians[1],
            medians,
            range,
        })
    }

    /// The latencies of one side over all rounds.
    pub(crate) fn curves(&self, side: usize) -> Vec<(String, Latency)> {
        let mut sum: Vec<(String, Latency)> = Vec::new();
        if self.is_search() {
            return sum;
        }
        for report in self.rounds.iter().filter_map(|round| round.sides.get(side)) {
            for (name, latency) in report.curves() {
                match sum.iter_mut().find(|(it, _)| it == name) {
                    Some((_, sum)) => sum.add(latency),
                    None => sum.push((name.clone(), latency.clone())),
                }
            }
        }
        sum
    }

    pub(crate) fn json(&self) -> Json {
        let rounds = self.rounds.iter().zip(1..).map(|(round, number)| {
            let [a, b] = &round.sides;
            let first = if round.is_turned { "b" } else { "a" };
            json!({"round": number, "first": first, "a": a.json(), "b": b.json()})
        });
        let compared = self.compared().into_iter().map(|one| {
            let mut object = Map::new();
            let [a, b] = one.medians;
            let [least, most] = one.range;
            let figures = [
                ("a", a),
                ("b", b),
                ("ratio", one.ratio),
                ("ratio_min", least),
                ("ratio_max", most),
            ];
            object.insert("figure".to_owned(), json!(one.figure));
            // What is no number, as nothing divided by nothing, is null.
            object.extend(figures.map(|(name, value)| (name.to_owned(), json!(value))));
            Json::Object(object)
        });
        json!({
            "names": {"a": self.names[0], "b": self.names[1]},
            "rounds": rounds.collect::<Vec<_>>(),
            "compared": compared.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let [a, b] = &self.names;
        let mut text = String::new();
        line(
            &mut text,
            format_args!("A: {a}   B: {b}   {} rounds", self.rounds.len()),
        );
        let compared = self.compared();
        let names = compared.iter().map(|one| one.figure.as_str());
        if let Some(main) = main_figures(names).first() {
            for (round, number) in self.rounds.iter().zip(1..) {
                let [a, b] = round.sides.each_ref().map(|side| side.figure(main));
                let [a, b] = [a, b].map(|it| it.map_or_else(String::new, short));
                let order = if round.is_turned { "B A" } else { "A B" };
                line(
                    &mut text,
                    format_args!("round {number} ({order}) {main:<14} {a:>12} {b:>12}"),
                );
            }
        }
        line(
            &mut text,
            format_args!(
                "{:<30} {:>12} {:>12} {:>8}  range",
                "median", "A", "B", "A / B"
            ),
        );
        for one in compared {
            let [a, b] = one.medians.map(short);
            let [least, most] = one.range;
            let (name, ratio) = (&one.figure, one.ratio);
            if ratio.is_finite() {
                line(
                    &mut text,
                    format_args!(
                        "{name:<30} {a:>12} {b:>12} {ratio:>8.2}  {least:.2} to {most:.2}"
                    ),
                );
            } else {
                line(&mut text, format_args!("{name:<30} {a:>12} {b:>12}"));
            }
        }
        text
    }
}

/// What was asked for is no result.
const SETTINGS: [&str; 14] = [
    "publishers",
    "subscribers",
    "payload_bytes",
    "offered_per_s",
    "offered_deliveries_per_s",
    "offered_reads_per_s",
    "seed",
    "users",
    "groups",
    "members",
    "within_s",
    "readers",
    "messages",
    "sessions",
];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    if values.len().is_multiple_of(2) {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Value;
    use crate::steps::{LatencyOf, Steps};

    fn report(rate: f64) -> Report {
        let mut report = Report::new("test");
        report.value("delivered_per_s", Value::Rate(rate));
        report
    }

    #[test]
    fn medians_are_compared_and_rounds_give_the_range() {
        let rounds = [[10.0, 5.0], [30.0, 10.0], [20.0, 20.0]];
        let versus = Versus {
            names: ["a".to_owned(), "b".to_owned()],
            rounds: rounds
                .map(|sides| Round {
                    is_turned: false,
                    sides: sides.map(report),
                })
                .into(),
        };
        let compared = versus.compared().remove(0);
        assert_eq!(
            (compared.medians, compared.range),
            ([20.0, 10.0], [1.0, 3.0])
        );
        assert!((compared.ratio - 2.0).abs() < 1e-9);
    }

    #[test]
    fn of_searches_only_the_saturation_is_compared_and_settings_never() {
        let side = |rate: f64, is_search: bool| {
            let mut report = report(rate);
            report.value("seed", Value::Count(1));
            report.value("saturation_per_s", Value::Count(7));
            report.steps = is_search.then(|| Steps {
                limit_ms: 1.0,
                latency_of: LatencyOf::Ack,
                tried: Vec::new(),
            });
            report
        };
        let figures = |is_search| {
            let sides = [1.0, 2.0].map(|rate| side(rate, is_search));
            let is_turned = false;
            let versus = Versus {
                names: ["a".to_owned(), "b".to_owned()],
                rounds: vec![Round { is_turned, sides }],
            };
            let compared = versus.compared().into_iter();
            compared.map(|one| one.figure).collect::<Vec<_>>()
        };
        assert_eq!(figures(true), ["saturation_per_s"]);
        assert_eq!(figures(false), ["delivered_per_s", "saturation_per_s"]);
    }

    #[tokio::test]
    async fn rounds_that_have_a_result_are_reported_though_a_later_one_fails() {
        let args = VersusArgs {
            vs: None,
            vs_server_pid: None,
            vs_mqtt: None,
            vs_user: None,
            vs_user_prefix: None,
            vs_password: None,
            vs_topics: None,
            vs_names: ["a", "b"].map(str::to_owned).into(),
            rounds: NonZeroU16::new(4).unwrap(),
        };
        let mut order = Vec::new();
        let measure = |round, is_other| {
            order.push((round, is_other));
            std::future::ready(if round < 3 {
                Ok(report(1.0))
            } else {
                Err(BenchError::Options("gone".to_owned()))
            })
        };
        let target = target();
        let report = run("test", ([&target, &target], &args), measure).await;
        let report = report.unwrap();
        assert_eq!(
            order,
            [(1, false), (1, true), (2, true), (2, false), (3, false)]
        );
        assert_eq!(report.versus.as_ref().map(|it| it.rounds.len()), Some(2));
        assert_eq!(report.faults(), ["not all rounds have a result"]);
        assert!(report.notes().join(" ").contains("gone"));
    }

    fn target() -> Target {
        use clap::Parser;
        crate::args::Args::parse_from(["mqchat-bench", "pairs"]).target
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
