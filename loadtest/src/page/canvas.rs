//! SVG by `plotters`, in the colours of the page it stands in.
//!
//! The crate knows fixed colours only, but a page is light or dark. So each role is drawn in a colour that stands for it, and
//! the finished text has that replaced by a variable of the style sheet; a line gets its dashes in the same place, so that
//! series differ without colour too.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::html;

/// The colours of both schemes, for the page and for pictures that stand alone.
pub const COLOURS: &str = include_str!("colours.css");

/// How many series have a colour of their own; dashes repeat at another pace, so no two of the first forty are the same.
pub const COLOURS_MAX: usize = 8;
const DASHES: [&str; 5] = ["", "7 3", "2 2.5", "10 3 2 3", "5 2 1.5 2 1.5 2"];

/// The crate divides sizes of fonts by this on their way into SVG.
const FONT_SCALE: f64 = 1.24;

/// What something is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// What is to be read first.
    Text,
    /// Labels of axes.
    Muted,
    /// Lines behind the data.
    Grid,
    /// The line that data is compared with.
    Reference,
    /// A background that keeps rows together.
    Band,
    /// The page itself, within what is hollow.
    Ground,
    /// One of several series.
    Series(usize),
    /// The same without its dashes.
    SolidSeries(usize),
}

/// Which end or side of a text is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// The text begins there.
    Left,
    /// Its middle is there.
    Middle,
    /// It ends there.
    Right,
}

/// Something to draw on, in pixels.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// What stands for a picture where it cannot be seen.
#[derive(Clone, Debug)]
pub struct Words {
    /// What it shows.
    pub title: String,
    /// What is to be seen in it.
    pub description: String,
}

/// A picture as an `svg` element. `id` has to be the only one of its kind on a page.
pub fn draw(id: &str, size: (u32, u32), words: &Words, paint: impl FnOnce(&mut Canvas<'_>)) -> String {
    let mut text = String::new();
    paint(&mut Canvas { area: SVGBackend::with_string(&mut text, size).into_drawing_area() });
    let (width, height) = size;
    let (title, description) = (html::escape(&words.title), html::escape(&words.description));
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{title}</title>\n<desc id=\"{id}-d\">{description}</desc>\n"
    );
    let body = text.find("<svg").and_then(|start| Some(&text[start + text[start..].find('>')? + 1..])).unwrap_or("</svg>");
    head + themed(body).trim_start()
}

impl Ink {
    const FIXED: [(Self, &'static str); 6] = [
        (Self::Text, "text"),
        (Self::Muted, "muted"),
        (Self::Grid, "grid"),
        (Self::Reference, "reference"),
        (Self::Band, "band"),
        (Self::Ground, "ground"),
    ];

    fn stand_in(self) -> RGBColor {
        match self {
            Self::Series(number) => RGBColor(2, 0, (number % 40) as u8),
            Self::SolidSeries(number) => RGBColor(3, 0, (number % COLOURS_MAX) as u8),
            _ => RGBColor(1, 0, Self::FIXED.iter().position(|&(ink, _)| ink == self).unwrap_or(0) as u8),
        }
    }
}

impl Canvas<'_> {
    /// A line through points.
    pub fn path(&mut self, points: &[(f64, f64)], ink: Ink, width: u32) {
        let points: Vec<(i32, i32)> = points.iter().map(|&point| whole(point)).collect();
        // Writing into memory can't fail, here and below.
        let _ = self.area.draw(&PathElement::new(points, ink.stand_in().stroke_width(width)));
    }

    /// A filled rectangle between two corners.
    pub fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink) {
        let _ = self.area.draw(&Rectangle::new([whole(from), whole(to)], ink.stand_in().filled()));
    }

    /// The mark of a series; four shapes in turn, hollow where what it stands for is doubtful.
    pub fn mark(&mut self, at: (f64, f64), series: usize, is_hollow: bool) {
        let at = whole(at);
        let around = |corners: &[(i32, i32)]| -> Vec<(i32, i32)> { corners.iter().map(|(x, y)| (at.0 + x, at.1 + y)).collect() };
        let corners: &[(i32, i32)] = match series % 4 {
            0 => &[],
            1 => &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
            2 => &[(0, -5), (5, 4), (-5, 4)],
            _ => &[(0, -5), (5, 0), (0, 5), (-5, 0)],
        };
        let ink = if is_hollow { Ink::Ground } else { Ink::Series(series) };
        let _ = match corners {
            [] => self.area.draw(&Circle::new(at, 4, ink.stand_in().filled())),
            corners => self.area.draw(&Polygon::new(around(corners), ink.stand_in().filled())),
        };
        if is_hollow {
            let outline = Ink::SolidSeries(series).stand_in().stroke_width(2);
            let closed = around(&[corners, corners.get(..2).unwrap_or_default()].concat());
            let _ = match corners {
                [] => self.area.draw(&Circle::new(at, 4, outline)),
                _ => self.area.draw(&PathElement::new(closed, outline)),
            };
        }
    }

    /// A line of text, vertically in the middle of its point.
    pub fn text(&mut self, text: &str, at: (f64, f64), align: Align, size: f64, ink: Ink) {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Middle => HPos::Center,
            Align::Right => HPos::Right,
        };
        let font = ("sans-serif", size * FONT_SCALE).into_font();
        let style = font.color(&ink.stand_in()).pos(Pos::new(horizontal, VPos::Center));
        let _ = self.area.draw(&Text::new(text.to_owned(), whole(at), style));
    }
}

/// About how wide a text is, in pixels.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|char| if "il.,:;|' []()".contains(char) { 0.33 } else { 0.58 }).sum::<f64>() * size
}

/// From a length to pixels, in powers of ten.
#[derive(Clone, Copy, Debug)]
pub struct LogScale {
    from: f64,
    to: f64,
    pixels: (f64, f64),
}

impl LogScale {
    /// Lays `from` and `to`, both above zero, onto two pixels.
    pub fn new(from: f64, to: f64, pixels: (f64, f64)) -> Self {
        let (from, to) = (from.max(f64::MIN_POSITIVE).log10(), to.max(f64::MIN_POSITIVE).log10());
        Self { from, to: if to - from < 1e-9 { from + 1.0 } else { to }, pixels }
    }

    /// Where a value lies; what lies outside, at the edge.
    pub fn at(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - self.from) / (self.to - self.from);
        self.pixels.0 + share.clamp(0.0, 1.0) * (self.pixels.1 - self.pixels.0)
    }

    /// The round numbers on it, as many as have room at `distance` pixels from each other.
    pub fn ticks(&self, distance: f64) -> Vec<f64> {
        let steps: [&[f64]; 4] = [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], &[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        let of = |steps: &[f64]| -> Vec<f64> {
            let powers = self.from.floor() as i32..=self.to.ceil() as i32;
            let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
            all.filter(|tick| (self.from - 1e-9..=self.to + 1e-9).contains(&tick.log10())).collect()
        };
        let fits = |ticks: &Vec<f64>| ticks.windows(2).all(|pair| (self.at(pair[1]) - self.at(pair[0])).abs() >= distance);
        steps.iter().map(|steps| of(steps)).find(fits).unwrap_or_else(|| of(steps[3]))
    }
}

/// Keeps labels from lying on each other: moves them apart as little as needed, in their order, within bounds.
pub fn spread(wanted: &[f64], distance: f64, bounds: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut placed = wanted.to_vec();
    let mut least = bounds.0;
    for &each in &order {
        placed[each] = placed[each].max(least);
        least = placed[each] + distance;
    }
    let mut most = bounds.1;
    for &each in order.iter().rev() {
        placed[each] = placed[each].min(most);
        most = placed[each] - distance;
    }
    placed
}

fn whole((x, y): (f64, f64)) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

/// Variables instead of the colours that stand for them, and the page's own font.
fn themed(svg: &str) -> String {
    let mut svg = svg.replace(" font-family=\"sans-serif\"", "").replace(" opacity=\"1\"", "");
    for (ink, name) in Ink::FIXED {
        let RGBColor(red, green, blue) = ink.stand_in();
        svg = svg.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &format!("var(--{name})"));
    }
    for colour in 0..COLOURS_MAX {
        let RGBColor(red, green, blue) = Ink::SolidSeries(colour).stand_in();
        svg = svg.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &format!("var(--s{colour})"));
    }
    for series in 0..40 {
        let RGBColor(red, green, blue) = Ink::Series(series).stand_in();
        let (stand_in, colour) = (format!("#{red:02X}{green:02X}{blue:02X}"), format!("var(--s{})", series % COLOURS_MAX));
        let dashes = DASHES[series % DASHES.len()];
        if !dashes.is_empty() {
            let plain = format!("<polyline fill=\"none\" stroke=\"{stand_in}\"");
            svg = svg.replace(&plain, &format!("<polyline fill=\"none\" stroke-dasharray=\"{dashes}\" stroke=\"{colour}\""));
        }
        svg = svg.replace(&stand_in, &colour);
    }
    svg
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_picture_has_words_and_no_colour_of_its_own() {
        let words = Words { title: "A & B".to_owned(), description: "Two".to_owned() };
        let svg = draw("x", (100, 50), &words, |canvas| {
            canvas.path(&[(0.0, 0.0), (9.0, 9.0), (20.0, 9.0)], Ink::Series(1), 2);
            canvas.text("label", (5.0, 5.0), Align::Right, 12.0, Ink::Muted);
            (0..8).for_each(|series| canvas.mark((30.0, 30.0), series, series >= 4));
        });
        assert!(svg.starts_with("<svg xmlns") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("<title id=\"x-t\">A &amp; B</title>") && svg.contains("aria-labelledby=\"x-t x-d\""), "{svg}");
        assert!(svg.contains("stroke-dasharray=\"7 3\" stroke=\"var(--s1)\"") && svg.contains("var(--muted)"), "{svg}");
        assert!(svg.contains("fill=\"var(--ground)\"") && svg.contains("stroke=\"var(--s7)\""), "hollow: {svg}");
        assert!(!svg.contains('#'), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_have_room() {
        let scale = LogScale::new(0.8, 30.0, (0.0, 300.0));
        assert_eq!(scale.ticks(50.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert!(scale.at(1.0) > 0.0 && scale.at(30.0) == 300.0 && scale.at(0.0) == 0.0);
    }

    proptest! {
        #[test]
        fn labels_keep_their_order_and_distance(wanted in prop::collection::vec(0.0..200.0_f64, 0..12)) {
            let placed = spread(&wanted, 15.0, (0.0, 200.0));
            let mut pairs: Vec<(f64, f64)> = wanted.iter().copied().zip(placed).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            for pair in pairs.windows(2) {
                prop_assert!(pair[1].1 - pair[0].1 >= 15.0 - 1e-6, "{pairs:?}");
            }
        }
    }
}
