//! Patterns: `[METHOD ][HOST]/PATH`, in the spirit of Go's ServeMux (DESIGN 3, Rules of the table).

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As written.
    pub text: String,
}

impl Pattern {
    /// Reads a pattern. Errors: the octet range at fault, what is wrong and how to mend it.
    pub fn parse(_text: &str) -> Result<Pattern, PatternError> {
        unimplemented!()
    }

    /// The names of all captures, in order.
    pub fn names(&self) -> Vec<&str> {
        unimplemented!()
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The octets of the text at fault.
    pub span: std::ops::Range<usize>,
    /// What is wrong.
    pub wrong: String,
    /// How to mend it.
    pub remedy: String,
}
