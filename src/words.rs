//! Values that are one of a few words: each is read from its word, prints it back, and an error lists the others.

/// A text that is none of the accepted words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{accepted}")]
pub struct ChoiceError {
    /// A sentence that says what is accepted.
    pub accepted: &'static str,
}

/// Defines an enum whose variants are words on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $accepted:literal, { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for this value on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::ChoiceError;

            fn from_str(text: &str) -> Result<Self, $crate::words::ChoiceError> {
                Self::ALL.iter().copied().find(|value| value.name() == text).ok_or($crate::words::ChoiceError { accepted: $accepted })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.name())
            }
        }
    };
}

pub(crate) use words;
