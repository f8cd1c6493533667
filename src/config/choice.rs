//! Values that are one of a few words: each is read from its word, prints it back, and an error lists the others.

use std::fmt;
use std::str::FromStr;

use crate::words::{ChoiceError, words};

words! {
    /// Which driver the workers run on.
    IoDriver, "give auto, epoll or uring", {
        /// io_uring where every worker can have it, else epoll.
        Auto = "auto",
        /// epoll.
        Epoll = "epoll",
        /// io_uring.
        Uring = "uring",
    }
}

/// A number, or `auto`: the server finds it out when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCount {
    /// Found out at the start.
    Auto,
    /// This many.
    Exactly(usize),
}

/// How many workers run: `auto` is one for each CPU this process may use.
pub type WorkerCount = AutoCount;

impl FromStr for AutoCount {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Exactly).map_err(|_| ChoiceError { accepted: "give auto or a whole number" }),
        }
    }
}

impl fmt::Display for AutoCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Exactly(count) => write!(formatter, "{count}"),
        }
    }
}

/// Reads a number that cannot be `auto`.
pub(super) fn whole_number(text: &str) -> Result<u32, ChoiceError> {
    text.parse().map_err(|_| ChoiceError { accepted: "give a whole number, 0 to 4294967295" })
}

/// Reads the variable of a flag that takes no value.
pub(super) fn switch(text: &str) -> Result<bool, ChoiceError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(ChoiceError { accepted: "give true or false, yes or no, on or off, 1 or 0" }),
    }
}

/// Reads whether something is on.
pub(super) fn on_or_off(text: &str) -> Result<bool, ChoiceError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ChoiceError { accepted: "give on or off" }),
    }
}

/// As [`on_or_off`] reads it.
pub(super) fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

/// Which CPU each worker stays on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinCores {
    /// Pinned where every worker gets a CPU of its own.
    Auto,
    /// Pinned, one CPU after the other of those this process may use.
    On,
    /// The kernel moves workers as it likes.
    Off,
    /// Worker N is pinned to the CPU at place N of this list, which is not empty.
    List(Vec<usize>),
}

impl PinCores {
    /// The largest CPU number a list may name: what Linux can be built for.
    pub const CPU_NUMBER_MAX: usize = 8191;

    /// Reads `0-3,5`.
    fn parse_list(text: &str) -> Option<Vec<usize>> {
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last > Self::CPU_NUMBER_MAX {
                return None;
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return None;
                }
                cores.push(core);
            }
        }
        Some(cores)
    }
}

impl FromStr for PinCores {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            list => Self::parse_list(list)
                .map(Self::List)
                .ok_or(ChoiceError { accepted: "give auto, on, off or a list of CPU numbers, each once, such as 0-3,5" }),
        }
    }
}

impl fmt::Display for PinCores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::On => formatter.write_str("on"),
            Self::Off => formatter.write_str("off"),
            Self::List(cores) => print_list(formatter, cores),
        }
    }
}

/// Prints `0-3,5`: a run of consecutive numbers as its ends.
fn print_list(formatter: &mut fmt::Formatter<'_>, cores: &[usize]) -> fmt::Result {
    let mut separator = "";
    for run in cores.chunk_by(|before, after| before + 1 == *after) {
        match run {
            [only] => write!(formatter, "{separator}{only}")?,
            [first, .., last] => write!(formatter, "{separator}{first}-{last}")?,
            [] => {}
        }
        separator = ",";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_others_are_listed() {
        for value in IoDriver::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
        }
        assert!("io_uring".parse::<IoDriver>().unwrap_err().to_string().contains("uring"));
    }

    #[test]
    fn cores_are_listed_by_ranges() {
        for (text, cores) in [("0", vec![0]), ("0-3,5", vec![0, 1, 2, 3, 5]), ("5,0-1", vec![5, 0, 1]), ("8191", vec![8191])] {
            let pin: PinCores = text.parse().unwrap();
            assert_eq!(pin.to_string(), text);
            assert_eq!(pin, PinCores::List(cores));
        }
        for text in ["", ",", "3-0", "0,0", "0-2,1", "8192", "0-99999999999", "a", "-1", "1-"] {
            assert!(text.parse::<PinCores>().is_err(), "{text:?}");
        }
        assert_eq!("off".parse(), Ok(PinCores::Off));
    }

    #[test]
    fn a_count_is_auto_or_a_number() {
        assert_eq!("auto".parse(), Ok(AutoCount::Auto));
        assert_eq!("4".parse(), Ok(AutoCount::Exactly(4)));
        assert!("-4".parse::<WorkerCount>().is_err());
        assert_eq!(AutoCount::Exactly(4).to_string(), "4");
    }

    #[test]
    fn numbers_and_switches_say_what_they_take() {
        assert_eq!(whole_number("4294967295"), Ok(u32::MAX));
        for text in ["", "-1", "abc", "4294967296"] {
            assert!(whole_number(text).unwrap_err().accepted.contains("4294967295"), "{text:?}");
        }
        assert_eq!((switch("On"), switch("0")), (Ok(true), Ok(false)));
        assert!(switch("perhaps").unwrap_err().accepted.contains("true or false"));
    }
}
