//! Just enough of a Rust reader for the tidy test: it knows comments, strings and braces, and nothing else.

/// A function with a body: its name, its first line, and the number of lines from `fn` to its last brace.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// The same text with the inside of comments, strings and character literals turned into spaces. Line ends stay.
pub(super) fn blank(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = literal(&bytes, at);
        let keep = length == 0;
        for c in &bytes[at..at + length.max(1)] {
            out.push(if keep || *c == '\n' { *c } else { ' ' });
        }
        at += length.max(1);
    }
    out
}

/// The length of the comment or literal that starts here, or 0.
fn literal(text: &[char], at: usize) -> usize {
    let starts = |what: &str| what.chars().enumerate().all(|(i, c)| text.get(at + i) == Some(&c));
    let after_word = at > 0 && is_word(text[at - 1]);
    match text[at] {
        '/' if starts("//") => text[at..].iter().take_while(|c| **c != '\n').count(),
        '/' if starts("/*") => comment(&text[at..]),
        '"' => string(&text[at..]),
        'r' if !after_word => raw_string(&text[at..], 1),
        'b' | 'c' if !after_word && text.get(at + 1) == Some(&'r') => raw_string(&text[at..], 2),
        '\'' => character(&text[at..]),
        _ => 0,
    }
}

fn comment(text: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(text.len())
}

fn string(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The length of a raw string. `prefix` is the length of `r` or `br`. A raw identifier such as `r#type` is not a
/// string.
fn raw_string(text: &[char], prefix: usize) -> usize {
    let hashes = text[prefix..].iter().take_while(|c| **c == '#').count();
    let start = prefix + hashes;
    if text.get(start) != Some(&'"') {
        return 0;
    }
    let mut at = start + 1;
    while at < text.len() {
        let closes =
            text[at] == '"' && text[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    text.len()
}

/// The length of a character literal, or 0 for a lifetime.
fn character(text: &[char]) -> usize {
    match (text.get(1), text.get(2)) {
        (Some('\\'), _) => text[2..].iter().skip(1).take_while(|c| **c != '\'').count() + 4,
        (Some(_), Some('\'')) => 3,
        _ => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of blanked text, each with the position after it.
fn words(text: &[char]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let length = text[at..].iter().take_while(|c| is_word(**c)).count();
        if length > 0 {
            found.push((text[at..at + length].iter().collect(), at + length));
        }
        at += length.max(1);
    }
    found
}

fn line_of(text: &[char], at: usize) -> usize {
    1 + text[..at].iter().filter(|c| **c == '\n').count()
}

/// Every function with a body in blanked text. An inner function is counted both by itself and in the outer one.
pub(super) fn functions(blanked: &str) -> Vec<Function> {
    let text: Vec<char> = blanked.chars().collect();
    let words = words(&text);
    let mut found = Vec::new();
    for pair in words.windows(2) {
        let [(keyword, end), (name, name_end)] = pair else { continue };
        let gap_is_space = text[*end..name_end - name.chars().count()].iter().all(|c| c.is_whitespace());
        if keyword != "fn" || !gap_is_space {
            continue;
        }
        if let Some(last) = body_end(&text, *name_end) {
            let line = line_of(&text, *end);
            found.push(Function { name: name.clone(), line, lines: line_of(&text, last) - line + 1 });
        }
    }
    found
}

/// The end of the body of the function whose name ends at `at`, or none for a declaration.
fn body_end(text: &[char], at: usize) -> Option<usize> {
    let (mut round, mut curly) = (0i32, 0i32);
    for (i, c) in text.iter().enumerate().skip(at) {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

/// Lines of `select!` calls that do not begin with `biased;`.
pub(super) fn unbiased_selects(blanked: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (at, call) in blanked.match_indices(concat!("sel", "ect!")) {
        let before = blanked[..at].chars().next_back();
        let inside = blanked[at + call.len()..].trim_start().trim_start_matches(['{', '(']).trim_start();
        if !before.is_some_and(is_word) && !inside.starts_with("biased") {
            found.push(1 + blanked[..at].matches('\n').count());
        }
    }
    found
}

#[test]
fn the_reader_knows_strings_comments_and_bodies() {
    let text = concat!(
        "fn one() { let a = \"}\"; } // fn no() {\n",
        "trait T { fn declared(&self); fn two<'a>(&'a self) -> [u8; 3]\n{\n let c = '{'; let d = '\\'';\n}\n}\n",
        "/* fn gone() { /* nested */ } */ const R: &str = r#\"fn raw() {\"#;\n",
        "type F = fn(u8) -> u8;\n",
    );
    let found: Vec<_> = functions(&blank(text)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 1, 1), ("two".to_owned(), 2, 4)]);
}

#[test]
fn the_reader_sees_an_unbiased_select() {
    let call = concat!("sel", "ect!");
    let text = format!(
        "tokio::{call} {{\n biased;\n a = b => {{}} }}\nfutures::{call}(a, b)\n{call} {{ x = y => 1 }}\n"
    );
    assert_eq!(unbiased_selects(&text), [4, 5]);
}
