//! Settings in the words of people: the lines of `--help`.

use crate::settings::setting::{Preset, Setting};

/// A line of help is indented by ten columns and fits a terminal of eighty.
const COLUMNS: usize = 70;

/// What happens when a setting is not given.
pub(crate) fn preset(setting: &Setting) -> String {
    let show = |value| setting.takes.show(value);
    match &setting.preset {
        Preset::Same(value) => show(value),
        Preset::PerStore { local, remote } => {
            format!("{} on a local store, {} on a remote one", show(local), show(remote))
        }
        Preset::Unset(words) => (*words).to_owned(),
    }
}

/// The help of `-h`: facts share lines where they fit.
pub(crate) fn help(setting: &Setting, facts: &[&str]) -> String {
    let mut lines = vec![wrap(setting.words)];
    for fact in facts {
        let joined = lines.last().filter(|_| lines.len() > 1).map(|line| format!("{line} {fact}"));
        match joined.filter(|line| line.chars().count() <= COLUMNS) {
            Some(joined) => *lines.last_mut().expect("there is a line") = joined,
            None => lines.push(wrap(fact)),
        }
    }
    lines.join("\n")
}

/// The help of `--help`: each fact has a line of its own.
pub(crate) fn long_help(setting: &Setting, facts: &[&str]) -> String {
    let lines = std::iter::once(setting.words).chain(facts.iter().copied());
    lines.map(wrap).collect::<Vec<_>>().join("\n")
}

/// Breaks a text between words into lines of [`COLUMNS`] at most.
fn wrap(text: &str) -> String {
    let mut wrapped = String::new();
    let mut columns = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if columns > 0 {
            let fits = columns + 1 + width <= COLUMNS;
            wrapped.push(if fits { ' ' } else { '\n' });
            columns = if fits { columns + 1 } else { 0 };
        }
        wrapped.push_str(word);
        columns += width;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::table::SETTINGS;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap(&format!("a {} b", "x".repeat(COLUMNS))), format!("a\n{}\nb", "x".repeat(COLUMNS)));
        assert_eq!(wrap(&"word ".repeat(15)), format!("{}\nword", ["word"; 14].join(" ")));
    }

    #[test]
    fn facts_share_a_line_where_they_fit() {
        let setting = SETTINGS.first().expect("a row");
        let (short, long) = ("[short]", "x".repeat(COLUMNS - 8));
        let joined = help(setting, &[short, &long, short]);
        assert_eq!(joined, format!("{}\n{short} {long}\n{short}", wrap(setting.words)));
        assert_eq!(long_help(setting, &[short, short]), format!("{}\n{short}\n{short}", wrap(setting.words)));
    }
}
