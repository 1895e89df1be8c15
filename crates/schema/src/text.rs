//! JSON text that is changed without a parser. The text is correct JSON: a parser has read it, or will and says what is
//! wrong with it.

/// The text with `0` for each `-0`, or `None` if it has none. A parser gives the double `-0.0` for it, as for `-0.0`,
/// but it is a whole number.
pub(crate) fn without_minus_zero(json: &[u8]) -> Option<Vec<u8>> {
    // Nearly no text comes further, dates included: their zeros are followed by a digit.
    if !(0..json.len()).any(|at| is_minus_zero_at(json, at)) {
        return None;
    }
    let mut changed: Option<Vec<u8>> = None;
    let mut strings = Strings::default();
    for (at, byte) in json.iter().enumerate() {
        if !strings.step(*byte) && is_minus_zero_at(json, at) {
            changed.get_or_insert_with(|| json.to_vec())[at] = b' ';
        }
    }
    changed
}

/// Whether `-0` is at this place and is a whole number, unless a string is around it.
fn is_minus_zero_at(json: &[u8], at: usize) -> bool {
    let number_goes_on = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E');
    // After the `e` of an exponent it is part of a number.
    json[at] == b'-'
        && json.get(at + 1) == Some(&b'0')
        && !json.get(at + 2).is_some_and(number_goes_on)
        && !(at > 0 && matches!(json[at - 1], b'e' | b'E'))
}

/// The text without the blanks between its tokens.
pub(crate) fn compact(json: &str) -> String {
    let mut strings = Strings::default();
    let kept = json.chars().filter(|c| {
        let inside = strings.step(u8::try_from(*c).unwrap_or(b'x'));
        inside || !matches!(c, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect()
}

/// Tells the inside of JSON strings from what is between them.
#[derive(Default)]
struct Strings {
    inside: bool,
    escaped: bool,
}

impl Strings {
    /// Whether the next byte is part of a string, its quotation marks included.
    fn step(&mut self, byte: u8) -> bool {
        let was_inside = self.inside;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.inside => self.escaped = true,
            b'"' => self.inside = !self.inside,
            _ => {}
        }
        was_inside || self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_minus_zero_is_found() {
        for (text, changed) in [
            (r#"{"a":-0}"#, Some(r#"{"a": 0}"#)),
            (r#"[-0,-0 ,1]"#, Some(r#"[ 0, 0 ,1]"#)),
            ("-0", Some(" 0")),
            (
                r#"{"-0":-0.0,"b":"-0","c":"\"-0","d":"\\","e":-0}"#,
                Some(r#"{"-0":-0.0,"b":"-0","c":"\"-0","d":"\\","e": 0}"#),
            ),
            (r#"[-0.0,-0e1,-0E1,1e-0,1E-0,-1,0,-01]"#, None),
            (r#"{"day":"2026-01-01"}"#, None),
        ] {
            let found = without_minus_zero(text.as_bytes());
            assert_eq!(found.map(|text| String::from_utf8(text).unwrap()).as_deref(), changed, "{text}");
        }
    }

    #[test]
    fn blanks_go_and_strings_stay() {
        let text = "{ \"a b\" :\t[ 1 ,\r\n \"x \\\" y\", \"é \\\\\" ] }";
        assert_eq!(compact(text), "{\"a b\":[1,\"x \\\" y\",\"é \\\\\"]}");
    }
}
