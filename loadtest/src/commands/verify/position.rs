//! Where a publication stands in its topic: the topic's life and the number in it.

/// A life of the topic, by when it was first heard of, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which life.
    pub epoch: usize,
    /// Which publication of it.
    pub offset: u64,
}

/// The lives of a topic. A later one is heard of later: the server has to be gone before it.
#[derive(Debug, Default)]
pub struct Epochs(Vec<String>);

impl Epochs {
    /// The position that a cursor names; None if it is no cursor.
    pub fn position(&mut self, cursor: &str) -> Option<Position> {
        let (name, offset) = split(cursor)?;
        let known = self.0.iter().position(|known| known == name);
        let epoch = known.unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        Some(Position { epoch, offset })
    }

    /// The same of a life that was heard of before.
    pub fn known(&self, cursor: &str) -> Option<Position> {
        let (name, offset) = split(cursor)?;
        Some(Position { epoch: self.0.iter().position(|known| known == name)?, offset })
    }
}

/// The cursor in front of a message's own.
pub fn before(cursor: &str) -> Option<String> {
    let (epoch, offset) = split(cursor)?;
    Some(format!("{epoch}.{}", offset.checked_sub(1)?))
}

fn split(cursor: &str) -> Option<(&str, u64)> {
    let (epoch, offset) = cursor.split_once('.')?;
    Some((epoch, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_in_the_order_of_lives_and_offsets() {
        let mut epochs = Epochs::default();
        let all = ["zz.1", "zz.9", "aa.2", "aa.10"].map(|cursor| epochs.position(cursor).unwrap());
        assert!(all.is_sorted(), "{all:?}");
        assert_eq!((epochs.known("zz.9"), epochs.known("cc.1")), (Some(all[1]), None));
        assert_eq!((epochs.position("zz"), epochs.position("zz.x"), epochs.position("")), (None, None, None));
        assert_eq!((before("zz.9"), before("zz.0"), before("9")), (Some("zz.8".to_owned()), None, None));
    }
}
