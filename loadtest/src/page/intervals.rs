//! Medians with their intervals, one row a server: a dot, a line through it, and the number beside it.

use crate::statistics::Estimate;

use super::canvas::{Align, Canvas, Ink, LogScale, Words, draw, text_width};

const FONT: f64 = 13.0;
const SMALL: f64 = 11.5;
const ROW: f64 = 24.0;
/// Above and below the rows: a title and the ticks.
const HEAD: f64 = 40.0;
const FOOT: f64 = 30.0;
const GAP: f64 = 26.0;

/// One panel: a test. Rows without an estimate stay empty.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// One for each server.
    pub rows: Vec<Option<Dot>>,
}

/// One row of a panel.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Where it is, and its line.
    pub estimate: Estimate,
    /// Whether it is drawn hollow, as of runs with flaws.
    pub is_doubtful: bool,
}

/// Several panels with the same rows and, if they share it, the same axis.
#[derive(Clone, Debug)]
pub struct Trellis {
    /// The names of the rows.
    pub names: Vec<String>,
    /// Which colour each row has.
    pub series: Vec<usize>,
    /// From left to right, and on to the next line where there is no room.
    pub panels: Vec<Panel>,
    /// The value to compare with.
    pub reference: Option<f64>,
    /// How a value is written beside its dot.
    pub show: fn(f64) -> String,
}

impl Trellis {
    /// Takes such dots out, and rows and panels that have none then.
    pub fn leave_out(&mut self, is_out: impl Fn(&Dot) -> bool) {
        self.panels.iter_mut().flat_map(|panel| &mut panel.rows).for_each(|dot| *dot = dot.filter(|dot| !is_out(dot)));
        self.panels.retain(|panel| panel.rows.iter().any(Option::is_some));
        let is_kept: Vec<bool> =
            (0..self.names.len()).map(|row| self.panels.iter().any(|panel| panel.rows[row].is_some())).collect();
        let kept = |row: usize| is_kept[row];
        self.panels.iter_mut().for_each(|panel| keep(&mut panel.rows, kept));
        keep(&mut self.names, kept);
        keep(&mut self.series, kept);
    }

    /// The picture, so wide.
    pub fn draw(&self, id: &str, width: u32, words: &Words) -> String {
        let names_width = self.names.iter().map(|name| text_width(name, FONT)).fold(0.0, f64::max) + 12.0;
        let room = f64::from(width) - names_width;
        let is_narrow = width < 500;
        let least = if self.panels.len() == 1 || is_narrow { room } else { 200.0 };
        let across = (((room + GAP) / (least + GAP)) as usize).clamp(1, self.panels.len().max(1));
        let down = self.panels.len().div_ceil(across);
        // As even as possible: four panels are two lines of two, not three and one.
        let across = self.panels.len().div_ceil(down.max(1)).max(1);
        let panel_width = (room - GAP * (across - 1) as f64) / across as f64;
        let line = HEAD + ROW * self.names.len() as f64 + FOOT;
        let height = (line * down as f64) as u32;
        draw(id, (width, height), words, |canvas| {
            for (at, panel) in self.panels.iter().enumerate() {
                let left = names_width + (at % across) as f64 * (panel_width + GAP);
                let top = (at / across) as f64 * line;
                if at % across == 0 {
                    self.draw_names(canvas, names_width - 12.0, top + HEAD);
                }
                self.draw_panel(canvas, panel, (left, top), panel_width);
            }
        })
    }

    fn draw_names(&self, canvas: &mut Canvas<'_>, right: f64, top: f64) {
        for (row, name) in self.names.iter().enumerate() {
            canvas.text(name, (right, middle(top, row)), Align::Right, FONT, Ink::Text);
        }
    }

    fn draw_panel(&self, canvas: &mut Canvas<'_>, panel: &Panel, (left, top): (f64, f64), width: f64) {
        let (first, last) = (top + HEAD, top + HEAD + ROW * self.names.len() as f64);
        let values: Vec<f64> = panel.rows.iter().flatten().map(|dot| dot.estimate.median).collect();
        let value_width = values.iter().map(|&value| text_width(&(self.show)(value), SMALL)).fold(0.0, f64::max) + 10.0;
        let (low, high) = self.range(panel);
        let scale = LogScale::new(low, high, (left + 6.0, left + width - value_width - 6.0));
        let right = left + width - value_width;
        for (line, text) in wrap(&panel.title, width).iter().enumerate() {
            canvas.text(text, (left, top + 8.0 + 16.0 * line as f64), Align::Left, FONT, Ink::Text);
        }
        for row in (0..self.names.len()).step_by(2) {
            canvas.rectangle((left, first + ROW * row as f64), (left + width, first + ROW * (row + 1) as f64), Ink::Band);
        }
        for tick in scale.ticks(34.0) {
            let x = scale.at(tick);
            canvas.path(&[(x, first), (x, last)], Ink::Grid, 1);
            canvas.text(&short(tick), (x, last + 13.0), Align::Middle, SMALL, Ink::Muted);
        }
        if let Some(reference) = self.reference {
            canvas.path(&[(scale.at(reference), first), (scale.at(reference), last)], Ink::Reference, 1);
        }
        for (row, dot) in panel.rows.iter().enumerate() {
            let y = middle(first, row);
            let Some(Dot { estimate, is_doubtful }) = dot else {
                canvas.text("–", (left + width, y), Align::Right, SMALL, Ink::Muted);
                continue;
            };
            let (from, to) = estimate.bounds();
            // Without an interval the line would go on for ever, which is what is known.
            let thickness = if estimate.low.is_some() { 2 } else { 1 };
            let line = [(scale.at(from).max(left), y), (scale.at(to).min(right), y)];
            canvas.path(&line, Ink::SolidSeries(self.series[row]), thickness);
            canvas.mark((scale.at(estimate.median), y), self.series[row], *is_doubtful);
            canvas.text(&(self.show)(estimate.median), (left + width, y), Align::Right, SMALL, Ink::Text);
        }
    }

    /// Each panel has its own: one test's factor of forty would hide another's of one and a half.
    fn range(&self, panel: &Panel) -> (f64, f64) {
        let estimates = panel.rows.iter().flatten().map(|dot| dot.estimate);
        let known = estimates.flat_map(|estimate| [Some(estimate.median), estimate.low, estimate.high]);
        let values = known.flatten().filter(|value| value.is_finite() && *value > 0.0).chain(self.reference);
        let (low, high) = values.fold((f64::INFINITY, 0.0), |(low, high), value| (f64::min(low, value), f64::max(high, value)));
        // At least a factor of one and a half, so that next to nothing looks like it.
        let room = (1.5 * low / high).max(1.0).sqrt() * 1.08;
        if high > 0.0 { (low / room, high * room) } else { (1.0, 10.0) }
    }
}

fn keep<T>(all: &mut Vec<T>, is_kept: impl Fn(usize) -> bool) {
    let mut row = 0;
    all.retain(|_| {
        row += 1;
        is_kept(row - 1)
    });
}

/// A tick without needless digits.
pub fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", (value / 1e5).round() / 10.0),
        1e4.. => format!("{}k", (value / 1e2).round() / 10.0),
        _ => format!("{}", (value * 1e4).round() / 1e4),
    }
}

/// A title on two lines at the most.
fn wrap(title: &str, width: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in title.split(' ') {
        let at = lines.len() - 1;
        let fits = text_width(&lines[at], FONT) + text_width(word, FONT) + 4.0 <= width;
        if lines[at].is_empty() || fits {
            lines[at] = format!("{} {word}", lines[at]).trim_start().to_owned();
        } else if at == 0 {
            lines.push(word.to_owned());
        } else {
            lines[at].push('…');
            break;
        }
    }
    lines
}

fn middle(top: f64, row: usize) -> f64 {
    top + ROW * (row as f64 + 0.5)
}
