//! Unmasking in place (RFC 6455 section 5.3).

/// Removes `mask` from `bytes` and returns the mask turned to where the next byte of the same frame goes on.
///
/// Turning the mask instead of carrying a phase makes the next piece of a frame look like a frame of its own. Words of eight
/// bytes are enough: the compiler widens this loop to the vectors of the target, whatever the alignment.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4]) -> [u8; 4] {
    let key = u32::from_le_bytes(mask);
    let mut wide = u64::from(key) << 32 | u64::from(key);
    let turn = 8 * (bytes.len() as u32 % 4);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
    }
    for byte in tail {
        *byte ^= wide as u8;
        wide >>= 8;
    }
    key.rotate_right(turn).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unmask;

    /// The sentence of section 5.3 as it stands: octet i is XORed with octet i modulo 4 of the key.
    fn plain(bytes: &mut [u8], mask: [u8; 4]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= mask[i % 4];
        }
    }

    proptest! {
        #[test]
        fn any_alignment_and_any_pieces_give_what_the_plain_twin_gives(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            mask: [u8; 4],
            skip in 0_usize..16,
            cuts in prop::collection::vec(0_usize..300, 0..4),
        ) {
            let skip = skip.min(bytes.len());
            let mut expected = bytes.clone();
            plain(&mut expected[skip..], mask);

            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.clamp(skip, bytes.len())).chain([skip, bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut actual, mut turned) = (bytes, mask);
            for pair in cuts.windows(2) {
                turned = unmask(&mut actual[pair[0]..pair[1]], turned);
            }
            prop_assert_eq!(actual, expected);
        }
    }
}
