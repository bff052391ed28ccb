//! The parts of the page.

use super::chart::{Axis, Chart, Line, Look, Scale};
use super::figure::{count, kilobytes, label, micros, value};
use super::{Page, Text};
use crate::report::{Latency, Report, main_figures, short};
use crate::series::Table;
use crate::setting::Setting;
use crate::steps::Steps;
use crate::versus::{Compared, Versus};

/// Faults first, then what else is to be known.
pub(super) fn told(report: &Report, page: &mut Page) {
    for fault in report.faults() {
        let fault = Text(fault);
        page.add(format_args!(
            "<p class=\"told bad\"><b>Fault:</b> {fault}</p>"
        ));
    }
    if let Some(checked) = report.all_is_well() {
        page.add(format_args!("<p class=\"told good\">{checked}</p>"));
    }
    for note in report.notes() {
        page.add(format_args!("<p class=\"told\">{}</p>", Text(note)));
    }
}

/// The figures that say most.
pub(super) fn headlines(report: &Report, page: &mut Page) {
    let names = report.lines().iter().map(|(name, _)| name.as_str());
    page.add(format_args!("<dl class=\"cards\">"));
    for (index, name) in main_figures(names).into_iter().take(8).enumerate() {
        let number = report.figure(name).unwrap_or(f64::NAN);
        card(&label(name), &value(name, number), index == 0, page);
    }
    page.add(format_args!("</dl>"));
}

fn card(label: &str, value: &str, is_first: bool, page: &mut Page) {
    let class = if is_first { "card first" } else { "card" };
    page.add(format_args!(
        "<div class=\"{class}\"><dt>{}</dt><dd>{}</dd></div>",
        Text(label),
        Text(value)
    ));
}

/// Which rates held.
pub(super) fn steps(steps: &Steps, page: &mut Page) {
    let limit_us = steps.limit_ms * 1_000.0;
    let points = |held: bool, name: &'static str| -> Vec<(f64, f64)> {
        let of = steps
            .tried
            .iter()
            .filter(|step| step.failure.is_none() == held);
        of.filter_map(|step| Some((f64::from(step.rate), step.figure(name)?)))
            .collect()
    };
    let p99 = |held: bool| -> Vec<(f64, f64)> {
        let of = steps
            .tried
            .iter()
            .filter(|step| step.failure.is_none() == held);
        of.filter_map(|step| {
            let latency = steps.latency(|name| step.figure(name))?;
            Some((f64::from(step.rate), latency))
        })
        .collect()
    };
    let mut ideal: Vec<_> = steps
        .tried
        .iter()
        .map(|step| f64::from(step.rate))
        .collect();
    ideal.sort_by(f64::total_cmp);
    ideal.dedup();
    let rate = || Axis {
        scale: Scale::Log,
        write: count,
    };
    page.add(format_args!("<h2>Steps</h2><div class=\"charts\">"));
    Chart {
        title: "Offered and achieved",
        note: "publishes per second; dashed: all of them",
        x: rate(),
        y: rate(),
        lines: vec![
            Line {
                name: "",
                look: Look::Faint,
                points: ideal.iter().map(|rate| (*rate, *rate)).collect(),
            },
            Line {
                name: "held",
                look: Look::Dots('a'),
                points: points(true, achieved(steps)),
            },
            Line {
                name: "did not hold",
                look: Look::Rings('b'),
                points: points(false, achieved(steps)),
            },
        ],
        limit: None,
    }
    .draw(page);
    Chart {
        title: "p99 of latency",
        note: "at each rate that was offered",
        x: rate(),
        y: Axis {
            scale: Scale::Log,
            write: micros,
        },
        lines: vec![
            Line {
                name: "held",
                look: Look::Dots('a'),
                points: p99(true),
            },
            Line {
                name: "did not hold",
                look: Look::Rings('b'),
                points: p99(false),
            },
        ],
        limit: Some(limit_us),
    }
    .draw(page);
    page.add(format_args!("</div>"));
    steps_table(steps, page);
}

/// What tells how many of the publishes got through.
fn achieved(steps: &Steps) -> &'static str {
    let name = "acked_per_s";
    let mut figures = steps.tried.iter().filter_map(|step| step.figure(name));
    if figures.any(|figure| figure > 0.0) {
        name
    } else {
        "sent_per_s" // at QoS 0
    }
}

fn steps_table(steps: &Steps, page: &mut Page) {
    const COLUMNS: [&str; 12] = [
        "acked_per_s",
        "delivered_per_s",
        "ack_p50_us",
        "ack_p99_us",
        "ack_p999_us",
        "ack_max_us",
        "delivery_p50_us",
        "delivery_p99_us",
        "delivery_p999_us",
        "delivery_max_us",
        "server_cpu_percent",
        "server_rss_kb",
    ];
    let best = steps.best().map(|step| step.rate);
    page.add(format_args!(
        "<div class=\"wide\" style=\"margin-top:14px\"><table><thead><tr><th class=\"n\">offered</th><th>held</th>"
    ));
    for name in COLUMNS {
        page.add(format_args!("<th class=\"n\">{}</th>", Text(&label(name))));
    }
    page.add(format_args!(
        "<th class=\"n\">generator CPU</th></tr></thead><tbody>"
    ));
    for step in &steps.tried {
        let is_best = step.failure.is_none() && Some(step.rate) == best;
        let class = if is_best { " class=\"best\"" } else { "" };
        let (held, told) = match &step.failure {
            None => ("held", "yes"),
            Some(failure) => ("failed", failure.as_str()),
        };
        page.add(format_args!(
            "<tr{class}><td class=\"n\">{}</td><td class=\"{held}\">{}</td>",
            Text(&short(step.rate.into())),
            Text(told)
        ));
        for name in COLUMNS {
            let text = step.figure(name).map_or_else(missing, |it| value(name, it));
            page.add(format_args!("<td class=\"n\">{}</td>", Text(&text)));
        }
        let name = "generator_cpu_percent";
        let own = step.figure(name).map_or_else(missing, |it| value(name, it));
        let limited = if step.generator_limited {
            " (at its limit)"
        } else {
            ""
        };
        page.add(format_args!(
            "<td class=\"n\">{}{limited}</td></tr>",
            Text(&own)
        ));
    }
    page.add(format_args!("</tbody></table></div>"));
}

/// Where nothing was measured.
fn missing() -> String {
    "–".to_owned()
}

/// The curves of the percentiles.
pub(super) fn latencies(report: &Report, page: &mut Page) {
    if report.curves().is_empty() {
        return;
    }
    page.add(format_args!("<h2>Latency</h2><div class=\"charts\">"));
    for three in report.curves().chunks(3) {
        let lines = three.iter().zip(['a', 'b', 'c']);
        let lines = lines.map(|((name, latency), colour)| curve(label(name), latency, colour));
        let lines: Vec<_> = lines.collect();
        percentiles("Percentiles", &lines, page);
    }
    page.add(format_args!("</div>"));
}

struct Curve {
    name: String,
    colour: char,
    points: Vec<(f64, f64)>,
}

fn curve(name: String, latency: &Latency, colour: char) -> Curve {
    Curve {
        name,
        colour,
        points: latency.curve(),
    }
}

fn percentiles(title: &str, curves: &[Curve], page: &mut Page) {
    let lines = curves.iter().map(|curve| Line {
        name: &curve.name,
        look: Look::Line(curve.colour),
        points: curve.points.clone(),
    });
    Chart {
        title,
        note: "so many percent took no longer",
        x: Axis {
            scale: Scale::Log,
            write: percentile,
        },
        y: Axis {
            scale: Scale::Log,
            write: micros,
        },
        lines: lines.collect(),
        limit: None,
    }
    .draw(page);
}

/// Of 1 / (1 − quantile): 10 is 90 %, 100 is 99 %. Where it is long there is no room for the sign.
fn percentile(inverse: f64) -> String {
    let percent = 100.0 - 100.0 / inverse.max(1.0);
    let text = format!("{percent:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let sign = if text.len() > 5 { "" } else { " %" };
    format!("{text}{sign}")
}

/// Second by second.
pub(super) fn series(table: &Table, page: &mut Page) {
    if table.at_s.len() < 2 {
        return;
    }
    let all = |column: &[f64]| -> Vec<(f64, f64)> {
        table
            .at_s
            .iter()
            .copied()
            .zip(column.iter().copied())
            .collect()
    };
    let some = |column: &[Option<f64>]| -> Vec<(f64, f64)> {
        let points = table.at_s.iter().zip(column);
        points
            .filter_map(|(at, value)| Some((*at, (*value)?)))
            .collect()
    };
    page.add(format_args!("<h2>Over time</h2><div class=\"charts\">"));
    let rates = [
        ("delivered", all(&table.delivered_per_s)),
        ("acknowledged", all(&table.acked_per_s)),
    ];
    over_time("Messages per second", count, rates, page);
    let p99 = [
        ("delivery", some(&table.delivery_p99_us)),
        ("ack", some(&table.ack_p99_us)),
    ];
    over_time("p99 of latency", micros, p99, page);
    let cpu = [
        ("server", some(&table.server_cpu_percent)),
        ("", Vec::new()),
    ];
    over_time(
        "CPU, 100 % is one core",
        |it| format!("{it:.0} %"),
        cpu,
        page,
    );
    let kilobytes = table.server_rss_kb.iter();
    let megabytes: Vec<_> = kilobytes.map(|it| it.map(|it| it / 1_024.0)).collect();
    let memory = [("server", some(&megabytes)), ("", Vec::new())];
    over_time(
        "Resident memory",
        |it| format!("{} MB", count(it)),
        memory,
        page,
    );
    page.add(format_args!("</div>"));
}

fn over_time(
    title: &str,
    write: fn(f64) -> String,
    lines: [(&str, Vec<(f64, f64)>); 2],
    page: &mut Page,
) {
    let lines = lines.into_iter().zip(['a', 'b']);
    let lines = lines.filter(|((_, points), _)| !points.is_empty());
    let lines = lines.map(|((name, points), colour)| Line {
        name,
        look: Look::Line(colour),
        points,
    });
    Chart {
        title,
        note: "",
        x: Axis {
            scale: Scale::Linear,
            write: |seconds| format!("{} s", count(seconds)),
        },
        y: Axis {
            scale: Scale::Linear,
            write,
        },
        lines: lines.collect(),
        limit: None,
    }
    .draw(page);
}

/// Every figure.
pub(super) fn figures(report: &Report, page: &mut Page) {
    page.add(format_args!(
        "<h2>All figures</h2><div class=\"wide\"><table><thead><tr><th>figure</th><th class=\"n\">value</th><th>name in JSON</th></tr></thead><tbody>"
    ));
    for (name, number) in report.lines() {
        page.add(format_args!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td><code>{}</code></td></tr>",
            Text(&label(name)),
            Text(&value(name, number.number())),
            Text(name)
        ));
    }
    page.add(format_args!("</tbody></table></div>"));
}

/// Two side by side.
pub(super) fn versus(versus: &Versus, page: &mut Page) {
    let compared = versus.compared();
    let names = compared.iter().map(|one| one.figure.as_str());
    let main = main_figures(names);
    let [a, b] = &versus.names;
    page.add(format_args!("<dl class=\"cards\">"));
    let of = |name: &str| compared.iter().find(|one| one.figure == name);
    for (index, one) in main.iter().filter_map(|name| of(name)).take(8).enumerate() {
        let name = format!("{}, A / B", label(&one.figure));
        card(&name, &times(one.ratio), index == 0, page);
    }
    page.add(format_args!(
        "</dl><p class=\"soft\">A is {}, B is {}; rounds go A B, B A, …</p><h2>Rounds</h2><div class=\"charts\">",
        Text(a),
        Text(b)
    ));
    for name in main.iter().take(6) {
        rounds(versus, name, page);
    }
    page.add(format_args!("</div><h2>Latency</h2><div class=\"charts\">"));
    let (ours, theirs) = (versus.curves(0), versus.curves(1));
    for (name, latency) in &ours {
        let other = theirs.iter().find(|(it, _)| it == name);
        let mut both = vec![curve(a.clone(), latency, 'a')];
        both.extend(other.map(|(_, latency)| curve(b.clone(), latency, 'b')));
        percentiles(&format!("Percentiles: {}", label(name)), &both, page);
    }
    page.add(format_args!("</div>"));
    versus_table(versus, &compared, page);
}

fn rounds(versus: &Versus, name: &str, page: &mut Page) {
    let side = |side: usize| -> Vec<(f64, f64)> {
        let rounds = versus.rounds.iter().zip(1_u32..);
        let figures = rounds.filter_map(|(round, number)| {
            Some((f64::from(number), round.sides.get(side)?.figure(name)?))
        });
        figures.collect()
    };
    let last = f64::from(u32::try_from(versus.rounds.len()).unwrap_or(u32::MAX));
    let medians = versus
        .compare(name)
        .map_or([f64::NAN; 2], |one| one.medians);
    let median = |median: f64| vec![(0.5, median), (last + 0.5, median)];
    let write = match name {
        name if name.contains("_us") => micros,
        name if name.contains("_kb") => kilobytes,
        _ => count,
    };
    let [a, b] = &versus.names;
    let [median_a, median_b] = medians.map(median);
    let line = |name, look, points| Line { name, look, points };
    Chart {
        title: &label(name),
        note: "by round; the lines are the medians",
        x: Axis {
            scale: Scale::Linear,
            write: |round| {
                if round.fract() == 0.0 && round > 0.0 {
                    count(round)
                } else {
                    String::new()
                }
            },
        },
        y: Axis {
            scale: Scale::Linear,
            write,
        },
        lines: vec![
            line("", Look::Line('a'), median_a),
            line("", Look::Line('b'), median_b),
            line(a, Look::Dots('a'), side(0)),
            line(b, Look::Dots('b'), side(1)),
        ],
        limit: None,
    }
    .draw(page);
}

fn versus_table(versus: &Versus, compared: &[Compared], page: &mut Page) {
    let [a, b] = &versus.names;
    page.add(format_args!(
        "<h2>All figures</h2><div class=\"wide\"><table><thead><tr><th>median</th><th class=\"n\">A: {}</th><th class=\"n\">B: {}</th><th class=\"n\">A / B</th><th class=\"n\">by round</th><th>name in JSON</th></tr></thead><tbody>",
        Text(a),
        Text(b)
    ));
    for one in compared {
        let name = one.figure.as_str();
        let [a, b] = one.medians.map(|median| value(name, median));
        let [least, most] = one.range.map(times);
        page.add(format_args!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{} – {}</td><td><code>{}</code></td></tr>",
            Text(&label(name)),
            Text(&a),
            Text(&b),
            Text(&times(one.ratio)),
            Text(&least),
            Text(&most),
            Text(name)
        ));
    }
    page.add(format_args!("</tbody></table></div>"));
}

/// A ratio.
fn times(ratio: f64) -> String {
    if ratio.is_finite() {
        format!("{ratio:.2} ×")
    } else {
        "–".to_owned()
    }
}

/// Where and how it was measured.
pub(super) fn setting(setting: &Setting, page: &mut Page) {
    page.add(format_args!(
        "<h2>How it was measured</h2><pre><code>{}</code></pre><div class=\"wide\"><table><tbody>",
        Text(&setting.command)
    ));
    for (index, server) in setting.servers.iter().enumerate() {
        let name = if index == 0 { "broker" } else { "other broker" };
        row(name, server, page);
    }
    for (name, text) in &setting.machine {
        row(&name.replace('_', " "), text, page);
    }
    page.add(format_args!("</tbody></table></div>"));
}

fn row(name: &str, text: &str, page: &mut Page) {
    page.add(format_args!(
        "<tr><td>{}</td><td>{}</td></tr>",
        Text(name),
        Text(text)
    ));
}
