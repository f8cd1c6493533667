//! A numbered message: 16 hexadecimal digits, then filler up to its size. Text, because any WebSocket server takes text.

/// The smallest message, in bytes: its number.
pub const SIZE_MIN: usize = 16;

/// A buffer that becomes one message after another.
#[derive(Debug)]
pub struct Payload(Vec<u8>);

impl Payload {
    /// Of `size` bytes, at least [`SIZE_MIN`].
    pub fn new(size: usize) -> Self {
        Self(vec![b'x'; size.max(SIZE_MIN)])
    }

    /// The message with this number.
    pub fn numbered(&mut self, number: u64) -> &[u8] {
        for (at, digit) in self.0[..SIZE_MIN].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 0xF];
        }
        &self.0
    }

    /// The number of a message that is one of ours in every byte but the number.
    pub fn number_of(&self, message: &[u8]) -> Option<u64> {
        let (digits, filler) = message.split_at_checked(SIZE_MIN)?;
        let number =
            digits.iter().try_fold(0, |number, &digit| Some(number << 4 | u64::from(char::from(digit).to_digit(16)?)))?;
        (filler == &self.0[SIZE_MIN..]).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_damage_shows() {
        let mut payload = Payload::new(20);
        for number in [0, 1, 0xDEAD_BEEF, u64::MAX] {
            let message = payload.numbered(number).to_vec();
            assert_eq!(payload.number_of(&message), Some(number));
        }
        let message = payload.numbered(5).to_vec();
        assert_eq!(payload.number_of(&message[..19]), None);
        assert_eq!(payload.number_of(&[&message[..19], b"y"].concat()), None);
        assert_eq!(payload.number_of(b"{\"type\":\"hello\"}xxxx"), None);
    }
}
