//! Which files of a crate know each other: the modules that each file names, and the circles among them.
//!
//! This reads text, not what the compiler knows. It finds `use` declarations and paths that begin with `crate`,
//! `self`, `super` or the name of a child module. Tests are left out: they may look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module as a path from the crate's root: `["write", "intake"]`. The root itself is empty.
type Module = Vec<String>;

/// The modules of one crate, each with those that it names.
pub(crate) struct Graph(BTreeMap<Module, BTreeSet<Module>>);

impl Graph {
    /// Reads the sources of a crate, given its `src` folder.
    pub(crate) fn read(src: &Path) -> Graph {
        let mut texts = BTreeMap::new();
        collect(src, &mut Vec::new(), &mut texts);
        Graph::of(&texts)
    }

    /// The graph of modules, given the text of each.
    pub(crate) fn of(texts: &BTreeMap<Module, String>) -> Graph {
        let known: BTreeSet<&Module> = texts.keys().collect();
        let named = |(module, text): (&Module, &String)| {
            let code = production(text);
            let paths = paths(&code, module, &known);
            let found = paths.iter().filter_map(|path| owner(path, &known));
            // The root only lists what there is.
            let found = found.filter(|found| *found != module && !found.is_empty()).cloned().collect();
            (module.clone(), found)
        };
        Graph(texts.iter().map(named).collect())
    }

    /// Groups of modules in which each reaches each: the strongly connected components of more than one module.
    pub(crate) fn circles(&self) -> Vec<Vec<Module>> {
        let mut circles: Vec<Vec<Module>> = Vec::new();
        for module in self.0.keys().filter(|module| !module.is_empty()) {
            if circles.iter().any(|circle| circle.contains(module)) {
                continue;
            }
            let reached = self.reachable(module);
            let circle: Vec<Module> = reached
                .iter()
                .filter(|other| *other == module || self.reachable(other).contains(module))
                .cloned()
                .collect();
            if circle.len() > 1 {
                circles.push(circle);
            }
        }
        circles
    }

    fn reachable(&self, from: &Module) -> BTreeSet<Module> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from.clone()];
        while let Some(module) = open.pop() {
            for next in self.0.get(&module).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    }
}

/// The room of a module: the folder at the top of the crate that it lies in. Files at the top share one.
pub(crate) fn room(module: &Module, rooms: &BTreeSet<String>) -> String {
    module.first().filter(|first| rooms.contains(*first)).cloned().unwrap_or_default()
}

/// The rooms of a crate: the folders in its `src`.
pub(crate) fn rooms(src: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(src).expect("a crate has sources");
    let folders =
        entries.map(|entry| entry.expect("an entry can be read").path()).filter(|path| path.is_dir());
    folders.map(|path| stem(&path)).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("it has a name").to_string_lossy().into_owned()
}

fn collect(folder: &Path, inside: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = stem(&path);
        if name == "tests" {
            continue;
        }
        let root = matches!(name.as_str(), "lib" | "main" | "mod");
        if path.is_dir() {
            inside.push(name);
            collect(&path, inside, texts);
            inside.pop();
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let module = inside.iter().cloned().chain((!root).then_some(name)).collect();
            texts.insert(module, fs::read_to_string(&path).expect("sources are UTF-8"));
        }
    }
}

/// The text without comments, and without items that only tests see.
fn production(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut kept = String::new();
    let mut skipped_until: Option<String> = None;
    let mut for_tests = false;
    for line in lines {
        if let Some(end) = &skipped_until {
            if line == end {
                skipped_until = None;
            }
        } else if line.trim() == "#[cfg(test)]" {
            for_tests = true;
        } else if for_tests && !line.trim_start().starts_with("#[") {
            for_tests = false;
            let indent = &line[..line.len() - line.trim_start().len()];
            // An item in braces ends with the brace at its own indentation.
            skipped_until = line.trim_end().ends_with('{').then(|| format!("{indent}}}"));
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// All paths of the text that lead into the crate, as paths from its root.
fn paths(code: &str, module: &Module, known: &BTreeSet<&Module>) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let starts_a_word = rest[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        rest = &rest[at + 4..];
        if let Some((declaration, after)) = rest.split_once(';')
            && starts_a_word
        {
            flatten(declaration, &[], &mut found);
            rest = after;
        }
    }
    let path_signs = |sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == ':');
    let words = code.split(path_signs).filter(|word| word.contains("::"));
    found.extend(words.map(|word| word.split("::").map(str::to_owned).collect()));
    found.iter().filter_map(|path| absolute(path, module, known)).collect()
}

/// Adds every path of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flatten(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let (head, inside) = match tree.split_once('{') {
        Some((head, inside)) => (head, inside.rsplit_once('}').map(|(inside, _)| inside)),
        None => (tree.split(" as ").next().unwrap_or_default(), None),
    };
    let names = head.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let path: Vec<String> = before.iter().cloned().chain(names).collect();
    let Some(inside) = inside else {
        found.push(path);
        return;
    };
    let (mut depth, mut from) = (0, 0);
    for (at, sign) in inside.char_indices().chain([(inside.len(), ',')]) {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[from..at].trim().is_empty() {
                    flatten(&inside[from..at], &path, found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// A path as the module wrote it, from the crate's root; none if it leads out of the crate.
fn absolute(path: &[String], module: &Module, known: &BTreeSet<&Module>) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => absolute_in(module, rest),
        "super" => {
            let parent = module.split_last().map(|(_, parent)| parent.to_vec())?;
            match rest.first().is_some_and(|next| next == "super") {
                true => absolute(rest, &parent, known),
                false => absolute_in(&parent, rest),
            }
        }
        _ => {
            let child = absolute_in(module, std::slice::from_ref(first))?;
            known.contains(&child).then(|| absolute_in(module, path))?
        }
    }
}

fn absolute_in(module: &Module, rest: &[String]) -> Option<Vec<String>> {
    Some(module.iter().chain(rest).cloned().collect())
}

/// The module that an item's path lies in: the longest beginning that is one.
fn owner<'a>(path: &[String], known: &BTreeSet<&'a Module>) -> Option<&'a Module> {
    (0..=path.len()).rev().find_map(|length| known.get(&path[..length].to_vec()).copied())
}
