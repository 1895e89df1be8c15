//! Errors of decoding and encoding.

use crate::versions::Versions;

/// A message that could not be decoded or encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// The innermost field with the fault; empty outside of tables (headers, trailing bytes).
    pub field: &'static str,
    /// The fault itself.
    pub fault: Fault,
}

impl WireError {
    /// Names the field, unless an inner one is named already.
    pub(crate) fn at(mut self, field: &'static str) -> WireError {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}

impl From<Fault> for WireError {
    fn from(fault: Fault) -> WireError {
        WireError { field: "", fault }
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field {
            "" => write!(f, "{}", self.fault),
            field => write!(f, "{} (at {field})", self.fault),
        }
    }
}

impl std::error::Error for WireError {}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A field needs more bytes than remain.
    #[error("the message ends early: {needed} bytes needed, {remaining} left")]
    Truncated {
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that remain.
        remaining: usize,
    },
    /// A length or count that is negative and does not mean null.
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// An array whose elements cannot fit into the bytes that remain.
    #[error("an array of {count} elements cannot fit into the {remaining} bytes left")]
    CountTooLarge {
        /// The elements announced.
        count: usize,
        /// Bytes that remain.
        remaining: usize,
    },
    /// The message would take far more memory than its size justifies.
    #[error(
        "the message would take too much memory for its size: {needed} bytes needed, {budget} left to it"
    )]
    TooDense {
        /// Bytes of memory that the next array or string needs.
        needed: usize,
        /// Bytes of memory that the message may still take.
        budget: usize,
    },
    /// A variable length number with more than 32 bits.
    #[error("a variable length number does not fit into 32 bits")]
    VarintTooLong,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// Null where the version allows none.
    #[error("null is not allowed in version {version}")]
    Null {
        /// The version of the message.
        version: i16,
    },
    /// The tags of tagged fields do not ascend.
    #[error("tagged field {tag} comes after {previous}")]
    TagOrder {
        /// The tag that came too late.
        tag: u32,
        /// The tag before it.
        previous: u32,
    },
    /// A known tagged field was shorter than its announced size.
    #[error("{0} bytes are left over in a tagged field")]
    TagSize(usize),
    /// Bytes are left after the message.
    #[error("{0} bytes are left over after the message")]
    Trailing(usize),
    /// A version that the message does not have.
    #[error("version {version} is not supported, only {supported}")]
    Version {
        /// The version asked for.
        version: i16,
        /// The versions that the message has.
        supported: Versions,
    },
    /// A value that the version cannot carry and that may not be dropped.
    #[error("the value cannot be said in version {version}")]
    NotCarried {
        /// The version of the message.
        version: i16,
    },
    /// A string, array or frame that is too long for its length field.
    #[error("a length of {0} does not fit into its field")]
    TooLong(usize),
}
