//! The name of an adopted socket.

/// A slot and the generation of its owner, so that a late event never reaches the slot's next owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The index of the connection, dense from 0.
    pub slot: u32,
    /// Counts the slot's owners.
    pub generation: u32,
}

impl Token {
    /// One number for the kernel to carry: the generation above the slot.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The token in `bits`.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_read_back() {
        let token = Token { slot: 7, generation: u32::MAX };
        assert_eq!(Token::from_bits(token.to_bits()), token);
    }
}
