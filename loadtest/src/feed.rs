//! What is published in a run: when, on which topics, through whom.

use std::collections::VecDeque;

use crate::clock::{self, Nanos};
use crate::histogram::Histogram;
use crate::net::Net;
use crate::schedule::Schedule;
use crate::stage::Stage;
use crate::traffic::Traffic;

/// When the next publication is due.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At fixed times: the open loop.
    Schedule(Schedule),
    /// When fewer than this many are under way: flat out.
    Window(u64),
    /// Nothing is published.
    Never,
}

/// Who publishes.
#[derive(Clone, Debug)]
pub enum Through {
    /// The topic's first subscriber.
    First,
    /// Connections that do nothing else. Each topic has one of them, as publications of two publishers have no order.
    Publishers(Vec<Publisher>),
}

/// A connection that only publishes, and what it waits for an answer to: topic and number.
#[derive(Clone, Debug)]
pub struct Publisher {
    id: usize,
    unanswered: VecDeque<(u32, u64)>,
}

/// The source of a run's publications.
#[derive(Debug)]
pub struct Feed {
    pace: Pace,
    through: Through,
    /// How many publications leave at a time.
    batch: u32,
    /// How many publications there were.
    taken: u64,
    /// Who published is gone: nothing more is published.
    is_broken: bool,
    /// What was due and not sent: more than the server takes, or the tool can send.
    pub not_sent: u64,
    /// How late the tool was with what was due.
    pub lateness: Histogram,
    /// The first refusal, in the server's words.
    pub first_refusal: Option<String>,
}

impl Through {
    /// Whose connection publishes on a topic: the first subscriber's, or its publisher's. None if that is gone.
    pub fn connection_of(&self, traffic: &Traffic, topic: u32) -> Option<usize> {
        match self {
            Self::First => traffic.first_member_of(topic),
            Self::Publishers(all) => Some(all[topic as usize % all.len()].id),
        }
    }
}

impl Publisher {
    /// On the connection with this number.
    pub const fn new(id: usize) -> Self {
        Self { id, unanswered: VecDeque::new() }
    }
}

impl Feed {
    /// `batch` publications at a time, on the topics in turn.
    pub fn new(pace: Pace, through: Through, batch: u32) -> Self {
        Self { pace, through, batch, taken: 0, is_broken: false, not_sent: 0, lateness: Histogram::new(), first_refusal: None }
    }

    /// Whether its times are fixed before the run.
    pub const fn is_open_loop(&self) -> bool {
        !matches!(self.pace, Pace::Window(_))
    }

    /// Publishes what is due, and says when the next is. After the stage's end nothing is.
    pub fn turn(&mut self, net: &mut Net, traffic: &mut Traffic, stage: &Stage, now: Nanos) -> Nanos {
        while let Some(due) = self.take_due(traffic, stage, now) {
            let at = clock::now();
            if stage.is_measured(due) {
                self.lateness.record(at - due);
            }
            let mut left = self.batch;
            while left > 0 && !net.is_overrun(at, stage.until) {
                left -= 1;
                self.publish(net, traffic, due);
            }
            if left > 0 {
                self.leave_out(left, stage, now);
                break;
            }
        }
        match &self.pace {
            _ if stage.is_over() || self.is_broken => Nanos::MAX,
            Pace::Schedule(schedule) => schedule.next_at(),
            Pace::Window(_) | Pace::Never => Nanos::MAX,
        }
    }

    /// Whether a full window has not moved for so long that nothing would ever be published again: something was lost.
    pub fn is_stuck(&self, traffic: &Traffic, now: Nanos, patience: Nanos) -> bool {
        matches!(self.pace, Pace::Window(window) if traffic.under_way() >= window) && now >= traffic.moved_at() + patience
    }

    /// Whether an answer is outstanding.
    pub fn is_unanswered(&self) -> bool {
        matches!(&self.through, Through::Publishers(all) if all.iter().any(|publisher| !publisher.unanswered.is_empty()))
    }

    /// A publication was answered. One that was refused is due to nobody.
    pub fn answered(&mut self, traffic: &mut Traffic, id: usize, result: Result<(), String>) {
        let Through::Publishers(all) = &mut self.through else { return };
        let publisher = all.iter_mut().find(|publisher| publisher.id == id);
        let Some((topic, number)) = publisher.and_then(|publisher| publisher.unanswered.pop_front()) else { return };
        if let Err(words) = result {
            traffic.refuse(topic, number);
            self.first_refusal.get_or_insert(words);
        }
    }

    /// A connection ended; if it was one that publishes, nothing more is published.
    pub fn closed(&mut self, id: usize) {
        self.is_broken |= matches!(&self.through, Through::Publishers(all) if all.iter().any(|publisher| publisher.id == id));
    }

    /// Whether who published is gone.
    pub const fn is_broken(&self) -> bool {
        self.is_broken
    }

    fn take_due(&mut self, traffic: &Traffic, stage: &Stage, now: Nanos) -> Option<Nanos> {
        match &mut self.pace {
            _ if self.is_broken => None,
            Pace::Schedule(schedule) => schedule.take(now, stage.until),
            Pace::Window(window) => (traffic.under_way() < *window && now < stage.until).then(clock::now),
            Pace::Never => None,
        }
    }

    /// Sends none of what is due by now, nor the `left` of a batch: else they would queue without limit.
    pub fn leave_out(&mut self, left: u32, stage: &Stage, now: Nanos) {
        if let Pace::Schedule(schedule) = &mut self.pace {
            self.not_sent += u64::from(left) + schedule.take_all(now, stage.until) * u64::from(self.batch);
        }
    }

    fn publish(&mut self, net: &mut Net, traffic: &mut Traffic, due: Nanos) {
        let topics = u64::from(traffic.topics());
        let topic = (self.taken % topics) as u32;
        let Some(id) = self.through.connection_of(traffic, topic) else {
            self.is_broken = true;
            return;
        };
        if let Through::Publishers(all) = &mut self.through
            && net.answers(id, false)
        {
            let at = topic as usize % all.len();
            all[at].unanswered.push_back((topic, traffic.next_of(topic)));
        }
        self.taken += 1;
        net.publish(id, topic, traffic.publication(topic, due), false);
    }
}
