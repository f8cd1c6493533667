//! What a verification comes to.

use std::fmt;

/// How many faults are told in words; the counts have all.
const WORDS_MAX: usize = 5;

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Publications that the server took.
    pub accepted: u64,
    /// Publications that it refused.
    pub refused: u64,
    /// Publications that nobody knows of whether it took them.
    pub unanswered: u64,
    /// Deliveries, each once.
    pub delivered: u64,
    /// Those of them that had been published before the connection stood.
    pub replayed: u64,
    /// Gaps that were announced.
    pub gaps: u64,
    /// Deliveries that were owed and did not come, within a gap that was announced.
    pub announced: u64,
    /// Deliveries that were owed and did not come, and nobody said so.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came behind a later one, and publications that stand behind a later one of their publisher.
    pub reordered: u64,
    /// Messages with two positions, positions with two messages, cursors that are none.
    pub contradicted: u64,
    /// Messages that are not of this run.
    pub foreign: u64,
    /// The first faults in words.
    pub words: Vec<String>,
}

impl Tally {
    /// Whether every promise was kept.
    pub const fn is_kept(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.contradicted == 0
    }

    /// Keeps the words of a fault, if it is among the first.
    pub fn note(&mut self, words: impl FnOnce() -> String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words());
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, delivered, replayed, gaps, lost, .. } = self;
        writeln!(
            f,
            "accepted {accepted}, delivered {delivered}, replayed {replayed}, gaps announced {gaps}, lost in silence {lost}"
        )?;
        let Self { duplicated, reordered, contradicted, announced, refused, unanswered, foreign, .. } = self;
        write!(
            f,
            "duplicated {duplicated}, reordered {reordered}, contradicted {contradicted}, missing and announced {announced}"
        )?;
        writeln!(f, ", refused {refused}, unanswered {unanswered}, foreign {foreign}")?;
        self.words.iter().try_for_each(|words| writeln!(f, "fault: {words}"))
    }
}
