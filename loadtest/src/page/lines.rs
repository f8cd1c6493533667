//! Lines over a logarithmic axis, each with its name at its end.

use super::canvas::{Align, Canvas, Ink, LogScale, Words, draw, spread, text_width};

const FONT: f64 = 13.0;
const SMALL: f64 = 11.5;
const HEAD: f64 = 26.0;
const FOOT: f64 = 42.0;
const LEFT: f64 = 62.0;

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Which colour, dashes and mark it has.
    pub number: usize,
    /// From left to right; what is not above zero is left out.
    pub points: Vec<(f64, f64)>,
    /// Whether its marks are hollow and its name says so, as of runs with flaws.
    pub is_doubtful: bool,
    /// Where it is marked: these values of x; everywhere, if there are none.
    pub marks: Option<Vec<f64>>,
}

/// The lower axis.
#[derive(Clone, Debug)]
pub enum Below {
    /// Percentiles, as many nines as there are: the distance to 100 % in powers of ten.
    Percentiles,
    /// Amounts in powers of ten.
    Amounts,
    /// Whole numbers, from zero.
    Counts,
}

/// A plot of lines.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What is drawn.
    pub series: Vec<Series>,
    /// The lower axis.
    pub below: Below,
    /// What the lower axis is.
    pub below_title: String,
    /// What the left axis is.
    pub left_title: String,
    /// How a value at the left is written.
    pub show: fn(f64) -> String,
    /// Whether the left axis begins at zero instead of being in powers of ten.
    pub from_zero: bool,
}

/// From values to pixels.
struct Axes {
    x: Axis,
    y: Axis,
}

enum Axis {
    Log(LogScale),
    Linear { to: f64, step_min: f64, pixels: (f64, f64) },
    Nines { to: f64, pixels: (f64, f64) },
}

impl Series {
    fn label(&self) -> String {
        format!("{}{}", self.name, if self.is_doubtful { " !" } else { "" })
    }
}

impl Lines {
    /// The picture.
    pub fn draw(&self, id: &str, (width, height): (u32, u32), words: &Words) -> String {
        let names_width = self.series.iter().map(|series| text_width(&series.label(), FONT)).fold(0.0, f64::max) + 30.0;
        let (right, bottom) = (f64::from(width) - names_width.min(f64::from(width) * 0.4), f64::from(height) - FOOT);
        let axes = self.axes((LEFT, right), (bottom, HEAD));
        draw(id, (width, height), words, |canvas| {
            self.draw_axes(canvas, &axes, (right, bottom));
            for series in &self.series {
                draw_line(canvas, series, &axes);
            }
            self.draw_names(canvas, &axes, (right, bottom));
        })
    }

    fn axes(&self, across: (f64, f64), up: (f64, f64)) -> Axes {
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied()).filter(|point| point.1 > 0.0);
        let (mut from, mut to) = all().fold(((f64::INFINITY, f64::INFINITY), (0.0, 0.0)), |(low, high), (x, y)| {
            ((f64::min(low.0, x), f64::min(low.1, y)), (f64::max(high.0, x), f64::max(high.1, y)))
        });
        if all().next().is_none() {
            (from, to) = ((1.0, 1.0), (10.0, 10.0));
        }
        let x = match self.below {
            Below::Percentiles => Axis::Nines { to: to.0, pixels: across },
            Below::Amounts => Axis::Log(LogScale::new(from.0, to.0, across)),
            Below::Counts => Axis::Linear { to: to.0, step_min: 1.0, pixels: across },
        };
        let y = if self.from_zero {
            Axis::Linear { to: to.1 * 1.05, step_min: f64::MIN_POSITIVE, pixels: up }
        } else {
            Axis::Log(LogScale::new(from.1 / 1.15, to.1 * 1.15, up))
        };
        Axes { x, y }
    }

    fn draw_axes(&self, canvas: &mut Canvas<'_>, axes: &Axes, (right, bottom): (f64, f64)) {
        for tick in axes.y.ticks(30.0) {
            let y = axes.y.at(tick);
            canvas.path(&[(LEFT, y), (right, y)], Ink::Grid, 1);
            canvas.text(&(self.show)(tick), (LEFT - 8.0, y), Align::Right, SMALL, Ink::Muted);
        }
        canvas.path(&[(LEFT, bottom), (right, bottom)], Ink::Reference, 1);
        for tick in axes.x.ticks(46.0) {
            let x = axes.x.at(tick);
            canvas.path(&[(x, bottom), (x, bottom + 4.0)], Ink::Reference, 1);
            canvas.text(&axes.x.label(tick), (x, bottom + 14.0), Align::Middle, SMALL, Ink::Muted);
        }
        canvas.text(&self.left_title, (0.0, 9.0), Align::Left, SMALL, Ink::Muted);
        canvas.text(&self.below_title, (right, bottom + 32.0), Align::Right, SMALL, Ink::Muted);
    }

    fn draw_names(&self, canvas: &mut Canvas<'_>, axes: &Axes, (right, bottom): (f64, f64)) {
        let ends: Vec<(&Series, (f64, f64))> =
            self.series.iter().filter_map(|series| Some((series, axes.place(last(series)?)))).collect();
        let wanted: Vec<f64> = ends.iter().map(|(_, end)| end.1).collect();
        for ((series, end), y) in ends.iter().zip(spread(&wanted, 16.0, (HEAD, bottom))) {
            canvas.path(&[(end.0 + 5.0, end.1), (right + 8.0, y), (right + 14.0, y)], Ink::SolidSeries(series.number), 1);
            canvas.text(&series.label(), (right + 18.0, y), Align::Left, FONT, Ink::SolidSeries(series.number));
        }
    }
}

impl Axes {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.x.at(x), self.y.at(y))
    }
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        match self {
            Self::Log(scale) => scale.at(value),
            Self::Linear { to, pixels, .. } | Self::Nines { to, pixels } => {
                pixels.0 + (value / to.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0) * (pixels.1 - pixels.0)
            }
        }
    }

    fn ticks(&self, distance: f64) -> Vec<f64> {
        match self {
            Self::Log(scale) => scale.ticks(distance),
            Self::Linear { to, step_min, pixels } => {
                let most = ((pixels.1 - pixels.0).abs() / distance).max(1.0);
                let rough = (to / most).max(*step_min);
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
                let step = step.unwrap_or(power * 10.0);
                (0..=(to / step) as usize).map(|number| number as f64 * step).collect()
            }
            // 0 %, 50 %, then a nine more each.
            Self::Nines { to, .. } => {
                [0.0, 0.5_f64.log10().abs()].into_iter().chain((1..=to.floor() as i32).map(f64::from)).collect()
            }
        }
    }

    fn label(&self, tick: f64) -> String {
        match self {
            Self::Nines { .. } => {
                let percent = 100.0 * (1.0 - 10_f64.powf(-tick));
                format!("{} %", (percent * 1e4).round() / 1e4)
            }
            _ => super::intervals::short(tick),
        }
    }
}

fn draw_line(canvas: &mut Canvas<'_>, series: &Series, axes: &Axes) {
    let points: Vec<(f64, f64)> = series.points.iter().filter(|point| point.1 > 0.0).map(|&point| axes.place(point)).collect();
    if points.len() > 1 {
        canvas.path(&points, Ink::Series(series.number), 2);
    }
    let is_marked = |x: f64| series.marks.as_ref().is_none_or(|marks| marks.iter().any(|mark| (mark - x).abs() < 1e-9));
    for &point in series.points.iter().filter(|point| point.1 > 0.0 && is_marked(point.0)) {
        canvas.mark(axes.place(point), series.number, series.is_doubtful);
    }
}

fn last(series: &Series) -> Option<(f64, f64)> {
    series.points.iter().rfind(|point| point.1 > 0.0).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(to: f64, step_min: f64) -> Vec<f64> {
        Axis::Linear { to, step_min, pixels: (0.0, 300.0) }.ticks(46.0)
    }

    #[test]
    fn counts_have_whole_ticks_and_amounts_round_ones() {
        assert_eq!(ticks(2.0, 1.0), [0.0, 1.0, 2.0]);
        assert_eq!(ticks(16.0, 1.0), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!(ticks(2.0, f64::MIN_POSITIVE), [0.0, 0.5, 1.0, 1.5, 2.0]);
    }
}
