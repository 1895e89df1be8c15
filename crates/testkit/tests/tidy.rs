//! Tidiness as a test, so that reviewers need not repeat themselves. Lengths are a ratchet: the numbers below may only
//! fall, and a change that brings one down must lower it here.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/source.rs"]
mod source;

use source::{blank, functions};

/// Functions longer than [`FUNCTION_LINES_MAX`] in all crates, tests included. May only fall.
const LONG_FUNCTIONS: usize = 2;
/// Lines of the longest function. May only fall.
const LONGEST_FUNCTION: usize = 101;
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of the longest file allowed, tests included.
const FILE_LINES_MAX: usize = 1_000;
const COLUMNS_MAX: usize = 120;

/// Words that may be in a working copy but never in a commit. They are cut in two, so that this file passes its own
/// test.
const BANNED_WORDS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it, or write an issue"),
    (concat!("XX", "X"), "say what is wrong in a sentence"),
    (concat!("to", "do!("), "write it"),
    (concat!("unimple", "mented!("), "return an error that says what to do"),
    (concat!("db", "g!("), "use tracing"),
    (concat!("#[ig", "nore"), "assert today's answer and say why it is wrong"),
];

/// Paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Endings of the text files that are checked. Data, lock files and binaries are not.
const TEXT: &[&str] = &["rs", "toml", "md", "py", "sh", "yml", "yaml", "sql", "java", "xml", "txt"];

/// Names of the commands that are checked. They have no ending.
const COMMANDS: &[&str] = &["run", "install", "build"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// All text files of the repository, in order.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(found.len() > 20, "the walk found the repository");
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // Hidden folders except .ci, build output and caches of tools are not ours.
        let skipped = (name.starts_with('.') && name != ".ci") || SKIPPED_FOLDERS.contains(&name.as_str());
        if path.is_dir() && !skipped {
            walk(&path, found);
        } else if is_text(&path, &name) {
            found.push(path);
        }
    }
}

fn is_text(path: &Path, name: &str) -> bool {
    path.extension().map_or(COMMANDS.contains(&name), |e| TEXT.iter().any(|t| e == *t))
}

const SKIPPED_FOLDERS: &[&str] = &["target", "floe-data", "node_modules", "__pycache__", "corpus", "venv"];

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

/// Runs `judge` over every file and fails with all findings at once.
fn check(judge: impl Fn(&Path, &str) -> Vec<(usize, String)>) {
    let root = root();
    let mut wrong = Vec::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("text files are UTF-8");
        let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        wrong.extend(judge(&path, &text).into_iter().map(|(line, what)| format!("{shown}:{line}: {what}")));
    }
    assert!(wrong.is_empty(), "not tidy:\n{}", wrong.join("\n"));
}

/// The lines of `text`, counted from one, for which `wrong` returns a finding.
fn lines(text: &str, wrong: impl Fn(&str) -> Option<String>) -> Vec<(usize, String)> {
    text.lines().enumerate().filter_map(|(i, line)| wrong(line).map(|what| (i + 1, what))).collect()
}

#[test]
fn no_banned_words() {
    check(|path, text| {
        if !is_rust(path) {
            return Vec::new();
        }
        let mut found = lines(text, banned_word);
        found.extend(source::unbiased_selects(&blank(text)).into_iter().map(|line| {
            (line, "start the select with `biased;`: an order drawn by chance cannot be repeated".to_owned())
        }));
        found
    });
}

fn banned_word(line: &str) -> Option<String> {
    let (word, instead) = BANNED_WORDS.iter().find(|(word, _)| line.contains(word))?;
    Some(format!("`{word}`: {instead}"))
}

#[test]
fn no_machine_paths() {
    check(|_, text| lines(text, machine_path));
}

fn machine_path(line: &str) -> Option<String> {
    let path = MACHINE_PATHS.iter().find(|path| line.contains(**path))?;
    Some(format!("`{path}` exists on one machine only"))
}

#[test]
fn no_tabs_and_no_trailing_space() {
    check(|path, text| if is_rust(path) { lines(text, bad_space) } else { Vec::new() });
}

fn bad_space(line: &str) -> Option<String> {
    if line.contains('\t') {
        return Some("a tab".to_owned());
    }
    line.ends_with(' ').then(|| "space at the end of the line".to_owned())
}

#[test]
fn no_long_lines() {
    check(|path, text| if is_rust(path) { lines(text, long_line) } else { Vec::new() });
}

/// Reports a line that is too long. Lines that rustfmt cannot break are excused: an address, or code with a quoted
/// text.
fn long_line(line: &str) -> Option<String> {
    let columns = line.chars().count();
    let is_comment = line.trim_start().starts_with("//");
    let excused = line.contains("://") || (line.contains('"') && !is_comment);
    (columns > COLUMNS_MAX && !excused).then(|| format!("{columns} columns, at most {COLUMNS_MAX}"))
}

#[test]
fn every_crate_says_what_it_is() {
    for entry in fs::read_dir(root().join("crates")).expect("crates folder") {
        let folder = entry.expect("entry").path();
        let library =
            [folder.join("src/lib.rs"), folder.join("src/main.rs")].into_iter().find(|f| f.exists());
        let library = library.unwrap_or_else(|| panic!("{} has a lib.rs or main.rs", folder.display()));
        let text = fs::read_to_string(&library).expect("UTF-8");
        assert!(text.starts_with("//! "), "{} starts with a crate doc", library.display());
    }
}

#[test]
fn commands_are_looked_at() {
    let root = root();
    for command in [".ci/run", "interop/run", "bench/run"] {
        assert!(files().contains(&root.join(command)), "{command}");
    }
}

#[test]
fn long_functions_only_become_fewer_and_shorter() {
    let root = root();
    let mut long = Vec::new();
    let mut longest = 0;
    for path in files().into_iter().filter(|path| is_rust(path)) {
        let text = fs::read_to_string(&path).expect("text files are UTF-8");
        let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let count = text.lines().count();
        assert!(count <= FILE_LINES_MAX, "{shown} has {count} lines, at most {FILE_LINES_MAX} are allowed");
        for function in functions(&blank(&text)) {
            longest = longest.max(function.lines);
            if function.lines > FUNCTION_LINES_MAX {
                long.push(format!(
                    "{shown}:{}: {} has {} lines",
                    function.line, function.name, function.lines
                ));
            }
        }
    }
    ratchet("functions over 70 lines", long.len(), LONG_FUNCTIONS, &long);
    ratchet("lines in the longest function", longest, LONGEST_FUNCTION, &long);
}

/// Checks a number that may only fall. When it has fallen, the written number must follow.
fn ratchet(what: &str, now: usize, before: usize, found: &[String]) {
    let found = found.join("\n");
    assert!(now <= before, "{now} {what}, {before} are allowed:\n{found}");
    assert_eq!(now, before, "fewer {what} than before: write the new number into this file\n{found}");
}
