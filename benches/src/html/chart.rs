//! Line and dot charts as SVG, drawn to be read on a phone as well.

use super::{Page, Text};

/// Axes, and what is drawn on them.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// How it is to be read.
    pub(super) note: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line<'a>>,
    /// A value of y that is not to be exceeded.
    pub(super) limit: Option<f64>,
}

/// One direction.
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) write: fn(f64) -> String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    Log,
}

/// Points of one kind.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) look: Look,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A line, by its colour: a, b, c.
    Line(char),
    Dots(char),
    /// Dots that are not filled.
    Rings(char),
    /// A faint line for comparison.
    Faint,
}

impl Look {
    const fn colour(self) -> char {
        match self {
            Self::Line(colour) | Self::Dots(colour) | Self::Rings(colour) => colour,
            Self::Faint => 'f',
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Line(_) | Self::Faint => "line",
            Self::Dots(_) => "dot",
            Self::Rings(_) => "ring",
        }
    }
}

impl Chart<'_> {
    /// Appends it; nothing if there is nothing to be drawn.
    pub(super) fn draw(&self, page: &mut Page) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        if points().count() < 2 {
            return;
        }
        let x = Span::new(
            &self.x,
            points().map(|point| point.0),
            (LEFT, WIDTH - RIGHT),
        );
        let ys = points().map(|point| point.1).chain(self.limit);
        let y = Span::new(&self.y, ys, (HEIGHT - BOTTOM, TOP));
        page.add(format_args!(
            "<figure class=\"chart\"><figcaption><b>{}</b> <span>{}</span><span class=\"legend\">",
            Text(self.title),
            Text(self.note)
        ));
        for line in self.lines.iter().filter(|line| !line.name.is_empty()) {
            let (class, colour) = (line.look.class(), line.look.colour());
            let name = Text(line.name);
            page.add(format_args!("<i class=\"{class} {colour}\"></i>{name} "));
        }
        page.add(format_args!(
            "</span></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            Text(self.title)
        ));
        self.grid(&x, &y, page);
        for line in &self.lines {
            draw_line(line, (&x, &y), (&self.x, &self.y), page);
        }
        page.add(format_args!("</svg></figure>"));
    }

    fn grid(&self, x: &Span, y: &Span, page: &mut Page) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y.ticks(5) {
            let at = y.at(tick);
            let text = (self.y.write)(tick);
            page.add(format_args!(
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                Text(&text)
            ));
        }
        for tick in x.ticks(6) {
            let at = x.at(tick);
            let text = (self.x.write)(tick);
            let anchor = if at > right - 16.0 { "end" } else { "middle" };
            page.add(format_args!(
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                bottom + 17.0,
                Text(&text)
            ));
        }
        if let Some(limit) = self.limit {
            let at = y.at(limit);
            let text = (self.y.write)(limit);
            page.add(format_args!(
                "<path class=\"limit\" d=\"M{left} {at:.1}H{right}\"/>\
                 <text class=\"limit\" x=\"{:.1}\" y=\"{:.1}\">limit {}</text>",
                left + 4.0,
                at - 5.0,
                Text(&text)
            ));
        }
    }
}

fn draw_line(line: &Line<'_>, (x, y): (&Span, &Span), axes: (&Axis, &Axis), page: &mut Page) {
    let (class, colour) = (line.look.class(), line.look.colour());
    if class == "line" {
        page.add(format_args!("<path class=\"line {colour}\" d=\""));
        for (index, point) in line.points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let (x, y) = (x.at(point.0), y.at(point.1));
            page.add(format_args!("{command}{x:.1} {y:.1}"));
        }
        page.add(format_args!("\"/>"));
    }
    let is_faint = line.look == Look::Faint;
    if is_faint || (class == "line" && line.points.len() > POINTS_SHOWN) {
        return;
    }
    // A line's points are there to be pointed at.
    let (class, radius) = if class == "line" {
        ("point", 3.0)
    } else {
        (class, 4.5)
    };
    for point in &line.points {
        let told = format!(
            "{}: {}, {}",
            line.name,
            (axes.0.write)(point.0),
            (axes.1.write)(point.1)
        );
        page.add(format_args!(
            "<circle class=\"{class} {colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>{}</title></circle>",
            x.at(point.0),
            y.at(point.1),
            Text(&told)
        ));
    }
}

/// Values of one axis, and where they are in the drawing.
struct Span {
    scale: Scale,
    least: f64,
    most: f64,
    /// Where the least and the most are.
    places: (f64, f64),
}

impl Span {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, places: (f64, f64)) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (mut least, mut most) = finite.fold((f64::MAX, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let scale = axis.scale;
        match scale {
            Scale::Linear => {
                least = 0.0;
                let step = step(most.max(1e-9), 5);
                most = (most.max(1e-9) / step).ceil() * step;
            }
            Scale::Log => {
                least = least.clamp(1e-3, most.max(1e-3));
                if most < least * 1.5 {
                    (least, most) = (least / 1.5, least.max(most) * 1.5);
                }
            }
        }
        Self {
            scale,
            least,
            most,
            places,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
        };
        let (from, to) = self.places;
        from + share.clamp(0.0, 1.0) * (to - from)
    }

    /// Round values, about so many.
    fn ticks(&self, count: u32) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.most, count);
                (0..=2 * count)
                    .map(|number| f64::from(number) * step)
                    .take_while(|tick| *tick <= self.most * 1.000_001)
                    .collect()
            }
            Scale::Log => {
                let decades = (self.most / self.least).log10();
                let within: &[f64] = match decades {
                    decades if decades <= 1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
                    decades if decades <= 2.5 => &[1.0, 2.0, 5.0],
                    _ => &[1.0],
                };
                (-4..13)
                    .flat_map(|power| within.iter().map(move |part| part * 10_f64.powi(power)))
                    .filter(|tick| (self.least..=self.most).contains(tick))
                    .collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten.
fn step(most: f64, count: u32) -> f64 {
    let rough = most / f64::from(count);
    let power = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = factors
        .iter()
        .find(|factor| *factor * power >= rough * 0.999);
    fits.map_or(10.0, |factor| *factor) * power
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Beyond that, points would be a second line.
const POINTS_SHOWN: usize = 150;

#[cfg(test)]
mod tests {
    use super::*;

    fn span(scale: Scale, values: &[f64]) -> Span {
        let write = |value: f64| value.to_string();
        Span::new(&Axis { scale, write }, values.iter().copied(), (0.0, 100.0))
    }

    #[test]
    fn ticks_are_round_and_within() {
        let linear = span(Scale::Linear, &[3.0, 87.0]);
        assert_eq!(linear.ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert!((linear.at(50.0) - 50.0).abs() < 1e-9);
        let log = span(Scale::Log, &[1.0, 10_000.0]);
        assert_eq!(log.ticks(5), [1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert!((log.at(100.0) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_drawn_outside() {
        for scale in [Scale::Linear, Scale::Log] {
            for values in [&[0.0, 0.0][..], &[5.0, 5.0], &[], &[f64::NAN, 1.0]] {
                let span = span(scale, values);
                for value in [-1.0, 0.0, 5.0, 1e12] {
                    assert!(
                        (0.0..=100.0).contains(&span.at(value)),
                        "{scale:?} {values:?}"
                    );
                }
            }
        }
    }
}
