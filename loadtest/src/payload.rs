//! A stamped message: which run, which topic, which number, and when it was due; then filler up to its size.
//!
//! The due time travels in the message, as every process on the machine reads the same monotonic clock: so any process can tell
//! how late a delivery is. All of it is plain ASCII without quotes or spaces, so it stays what it is in JSON, in RESP and on a
//! line of NATS, and is found again within whatever a server wraps around it.
//!
//! ```text
//! @ run(4) topic(4) number(5) due(8) check(1) filler...      each digit holds 6 bits
//! ```

use memchr::memchr;

use crate::clock::Nanos;

/// The smallest message, in bytes: its stamp.
pub const SIZE_MIN: usize = CHECK_AT + 1;

/// How many topics can be told apart.
pub const TOPICS_MAX: usize = 1 << (6 * TOPIC_DIGITS);

const MARK: u8 = b'@';
const FILLER: u8 = b'x';
const RUN_DIGITS: usize = 4;
const TOPIC_DIGITS: usize = 4;
const NUMBER_DIGITS: usize = 5;
const DUE_DIGITS: usize = 8;

/// Where the check digit stands, which tells of damage in those before it.
const CHECK_AT: usize = 1 + RUN_DIGITS + TOPIC_DIGITS + NUMBER_DIGITS + DUE_DIGITS;

/// The due time keeps its low 48 bits: three days of nanoseconds.
const DUE_MASK: u64 = (1 << (6 * DUE_DIGITS)) - 1;

/// The number keeps its low 30 bits, which are the digits' own: six minutes of three million a second.
const NUMBER_BITS: u32 = 6 * NUMBER_DIGITS as u32;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-";
const NO_DIGIT: u8 = 0xFF;
const VALUES: [u8; 256] = values();

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The topic's index.
    pub topic: u32,
    /// Which of the topic's publications, from 0; of one that was read its low bits, until [`Stamp::near`] completes it.
    pub number: u64,
    /// When it was due.
    pub due: Nanos,
}

impl Stamp {
    /// The same with its number completed: of those that have its low bits the one nearest to `expected`.
    pub fn near(self, expected: u64) -> Self {
        const UNUSED: u32 = u64::BITS - NUMBER_BITS;
        let away = (self.number.wrapping_sub(expected) << UNUSED).cast_signed() >> UNUSED;
        // None lies before the first; then it is one that was never published.
        Self { number: expected.checked_add_signed(away).unwrap_or(self.number), ..self }
    }
}

/// A buffer that becomes one message after another, and the way back.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    /// Messages of `size` bytes, at least [`SIZE_MIN`], of a run with this number.
    pub fn new(size: usize, run: u64) -> Self {
        let mut bytes = vec![FILLER; size.max(SIZE_MIN)];
        bytes[0] = MARK;
        write_digits(&mut bytes[1..][..RUN_DIGITS], run);
        Self { bytes }
    }

    /// The message with this stamp.
    pub fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        let (topic, rest) = self.bytes[1 + RUN_DIGITS..].split_at_mut(TOPIC_DIGITS);
        let (number, rest) = rest.split_at_mut(NUMBER_DIGITS);
        write_digits(topic, stamp.topic.into());
        write_digits(number, stamp.number);
        write_digits(&mut rest[..DUE_DIGITS], stamp.due);
        self.bytes[CHECK_AT] = check_digit(&self.bytes[1..CHECK_AT]);
        &self.bytes
    }

    /// The stamp of a message of this run that is ours in every byte, wherever it stands within `message`. `now` completes the
    /// due time, which lies before it.
    pub fn stamp_of(&self, message: &[u8], now: Nanos) -> Option<Stamp> {
        let mut rest = message;
        while let Some(at) = memchr(MARK, rest) {
            rest = &rest[at..];
            if let Some(stamp) = rest.get(..self.bytes.len()).and_then(|bytes| self.stamp(bytes, now)) {
                return Some(stamp);
            }
            rest = &rest[1..];
        }
        None
    }

    fn stamp(&self, bytes: &[u8], now: Nanos) -> Option<Stamp> {
        const RUN_END: usize = 1 + RUN_DIGITS;
        if bytes[..RUN_END] != self.bytes[..RUN_END] || bytes[SIZE_MIN..] != self.bytes[SIZE_MIN..] {
            return None;
        }
        if bytes[CHECK_AT] != check_digit(&bytes[1..CHECK_AT]) {
            return None;
        }
        let topic = read_digits(&bytes[RUN_END..][..TOPIC_DIGITS])? as u32;
        let number = read_digits(&bytes[RUN_END + TOPIC_DIGITS..][..NUMBER_DIGITS])?;
        let due = read_digits(&bytes[CHECK_AT - DUE_DIGITS..CHECK_AT])?;
        let due = now.checked_sub(now.wrapping_sub(due) & DUE_MASK)?;
        Some(Stamp { topic, number, due })
    }
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(value & 63) as usize];
        value >>= 6;
    }
}

fn read_digits(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut seen = 0;
    for &digit in digits {
        let digit = VALUES[digit as usize];
        seen |= digit;
        value = value << 6 | u64::from(digit & 63);
    }
    (seen & 0x80 == 0).then_some(value)
}

/// A weighted sum, in which every change of one digit shows, as the weights are odd.
fn check_digit(digits: &[u8]) -> u8 {
    let value = |digit: u8| u32::from(VALUES[usize::from(digit)]);
    let sum = digits.iter().fold(0_u32, |sum, &digit| sum.wrapping_mul(3).wrapping_add(value(digit)));
    DIGITS[(sum & 63) as usize]
}

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = (1 << 60) + 12_345;

    fn stamps() -> impl Iterator<Item = Stamp> {
        let due = [NOW, NOW - 1, NOW - 3600 * 1_000_000_000, NOW - DUE_MASK];
        due.into_iter()
            .flat_map(|due| [(0, 0), (1, 63), (0xFF_FFFF, (1 << 30) - 1)].map(|(topic, number)| Stamp { topic, number, due }))
    }

    #[test]
    fn stamps_come_back_from_within_anything() {
        let mut payload = Payload::new(50, 7);
        for stamp in stamps() {
            let message = payload.stamped(stamp).to_vec();
            assert_eq!(message.len(), 50);
            let wrapped = [br#"{"from":"ann@example","text":""#, &message[..], b"\"}"].concat();
            assert_eq!(payload.stamp_of(&message, NOW), Some(stamp));
            assert_eq!(payload.stamp_of(&wrapped, NOW), Some(stamp));
        }
    }

    #[test]
    fn numbers_go_on_behind_what_their_digits_hold() {
        let mut payload = Payload::new(40, 7);
        for number in [0, 1, (1 << 30) - 1, 1 << 30, (1 << 30) + 1, (3 << 30) + 77] {
            let stamp = Stamp { topic: 5, number, due: NOW };
            let message = payload.stamped(stamp).to_vec();
            let read = payload.stamp_of(&message, NOW).unwrap();
            for expected in [number.saturating_sub(1000), number, number + 1, number + (1 << 28)] {
                assert_eq!(read.near(expected), stamp, "near {expected}");
            }
        }
        let last = Stamp { topic: 5, number: (1 << 30) - 1, due: NOW };
        assert_eq!(last.near(3), last, "nothing lies before the first");
    }

    #[test]
    fn damage_in_any_byte_and_another_run_show() {
        let stamp = Stamp { topic: 5, number: 9, due: NOW - 77 };
        let mut payload = Payload::new(40, 7);
        let message = payload.stamped(stamp).to_vec();
        for at in 0..message.len() {
            let mut damaged = message.clone();
            for other in [b'"', damaged[at] ^ 1, b'7'] {
                damaged[at] = other;
                assert!(damaged == message || payload.stamp_of(&damaged, NOW).is_none(), "byte {at}: {other}");
            }
            assert_eq!(payload.stamp_of(&message[..at], NOW), None, "cut at {at}");
        }
        assert_eq!(Payload::new(40, 8).stamp_of(&message, NOW), None);
    }
}
