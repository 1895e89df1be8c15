//! The shape of the house: which crate may know which. An arrow between two crates may only point down, and fronts
//! never know each other. The list of what a floor must not know is here too, so that the build fails before a reviewer
//! must object.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

#[path = "house/circles.rs"]
mod circles;

use circles::{Graph, room, rooms};

/// Circles between files of one crate, over all crates. May only fall.
const CIRCLES: usize = 1;

/// The floors of the house from the ground up; crates on one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["floe-env", "floe-alloc"],
    &["floe-store"],
    &["floe-meta"],
    &["floe-wire", "floe-schema", "floe-query", "floe-iceberg"],
    &["floe-log", "floe-engine"],
    &["floe-group"],
    &["floe-client"],
    &["floe-view"],
    &["floe-lake", "floe-history"],
    &["floe-sql"],
    &["floe-kafka", "floe-http"],
    &["floe"],
];

/// The crates that clients speak to. A front that needs another one gets a trait object from the binary.
const FRONTS: &[&str] = &["floe-kafka", "floe-sql", "floe-http"];

/// The crate of the simulation. It may know every crate but the binary, and is only ever a dev-dependency.
const TESTKIT: &str = "floe-testkit";

/// Facts about absence: the crate on the left must not know the crates on the right, even if they are not ours.
const ABSENT: &[(&str, &[&str], &str)] = &[
    ("floe-meta", &["arrow", "object_store", "kafka-protocol"], "meta knows no batches and no objects"),
    (
        "floe-log",
        &["arrow", "parquet", "floe-iceberg", "kafka-protocol", "rusqlite"],
        "log knows no Arrow and no API numbers",
    ),
    ("floe-wire", &["arrow", "floe-iceberg", "object_store"], "wire knows messages alone"),
    (
        "floe-kafka",
        &["arrow", "parquet", "floe-iceberg", "rusqlite", "floe-schema", "floe-lake"],
        "batches pass through undecoded, and what is a table is a setting among others",
    ),
    (
        "floe-view",
        &["arrow", "parquet", "floe-iceberg", "datafusion", "floe-schema"],
        "the runner does not know what a view makes of records",
    ),
    (
        "floe-iceberg",
        &["arrow", "parquet", "bytes", "tokio", "apache-avro"],
        "documents are bytes in and bytes out, and build in seconds",
    ),
    (
        "floe-history",
        &["datafusion", "floe-lake", "floe-schema"],
        "rows of commits are a table, and none of a topic",
    ),
    (
        "floe-engine",
        &["floe-meta", "floe-log", "floe-lake", "floe-store"],
        "the engine knows neither tables nor the log",
    ),
    (
        "floe-lake",
        &["datafusion", "iceberg"],
        "a table is written without a query engine, in our own documents",
    ),
];

/// One package of the workspace, with its dependencies by kind as `cargo metadata` names them.
struct Package {
    name: String,
    folder: String,
    normal: Vec<String>,
    dev: Vec<String>,
}

fn packages() -> Vec<Package> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("packages").iter().map(package).collect()
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text(&value["manifest_path"]));
    let folder = manifest.parent().and_then(|f| f.file_name()).map(|n| n.to_string_lossy().into_owned());
    let dependencies = value["dependencies"].as_array().expect("dependencies");
    let of_kind = |dev: bool| {
        let wanted = dependencies.iter().filter(|d| (d["kind"].as_str() == Some("dev")) == dev);
        wanted.map(|d| text(&d["name"])).collect()
    };
    Package {
        name: text(&value["name"]),
        folder: folder.unwrap_or_default(),
        normal: of_kind(false),
        dev: of_kind(true),
    }
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

/// Checks an arrow from `source` to `target`, both crates of the house.
fn judge(source: &str, target: &str, dev: bool) -> Result<(), String> {
    if target == TESTKIT {
        return if dev {
            Ok(())
        } else {
            Err(format!("{source} -> {target}: the testkit is a dev-dependency only"))
        };
    }
    if source == TESTKIT {
        return if target == "floe" {
            Err(format!("{source} -> {target}: the binary is nobody's library"))
        } else {
            Ok(())
        };
    }
    if FRONTS.contains(&source) && FRONTS.contains(&target) {
        return Err(format!("{source} -> {target}: fronts never import each other"));
    }
    let (Some(from), Some(to)) = (floor_of(source), floor_of(target)) else {
        return Err(format!("{source} -> {target}: give the new crate a floor in FLOORS"));
    };
    if to < from { Ok(()) } else { Err(format!("{source} -> {target}: an arrow may only point down")) }
}

#[test]
fn arrows_only_point_down() {
    let packages = packages();
    let ours: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut wrong = Vec::new();
    for package in ours.values() {
        for (dependencies, dev) in [(&package.normal, false), (&package.dev, true)] {
            let inside = dependencies.iter().filter(|d| ours.contains_key(d.as_str()));
            wrong.extend(inside.filter_map(|target| judge(&package.name, target, dev).err()));
        }
    }
    assert!(wrong.is_empty(), "the house has arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn the_judge_sees_each_wrong_arrow() {
    for (source, target, dev) in [
        ("floe-meta", "floe-log", false),
        ("floe-kafka", "floe-http", false),
        ("floe-http", "floe-sql", true),
        ("floe-log", "floe-testkit", false),
        ("floe-testkit", "floe", false),
        ("floe-new", "floe-log", false),
        ("floe-log", "floe-log", false),
    ] {
        assert!(judge(source, target, dev).is_err(), "{source} -> {target} passed");
    }
    for (source, target, dev) in [("floe", "floe-sql", false), ("floe-log", "floe-testkit", true)] {
        assert_eq!(judge(source, target, dev), Ok(()));
    }
}

#[test]
fn floors_do_not_know_what_they_must_not() {
    let packages = packages();
    for (name, banned, why) in ABSENT {
        let package = packages.iter().find(|p| p.name == *name).expect("the crate exists");
        // A crate of a family (`arrow-schema`) counts as that family.
        let is_banned = |known: &str| {
            banned
                .iter()
                .any(|b| known == *b || known.strip_prefix(b).is_some_and(|rest| rest.starts_with('-')))
        };
        let known: Vec<_> = package.normal.iter().filter(|d| is_banned(d)).collect();
        assert!(known.is_empty(), "{name} depends on {known:?}, but {why}");
    }
}

#[test]
fn every_crate_is_named_after_its_folder_and_has_a_floor() {
    for package in packages() {
        let expected =
            if package.folder == "floe" { "floe".to_owned() } else { format!("floe-{}", package.folder) };
        assert_eq!(package.name, expected, "a package is called floe-<folder>");
        assert!(floor_of(&package.name).is_some() || package.name == TESTKIT, "{expected} has no floor");
    }
}

/// Whether a manifest has every lint of the workspace, and refuses unsafe code where no line allows it.
fn has_the_lints_but_for_unsafe_code(manifest: &str) -> bool {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let workspace = std::fs::read_to_string(workspace).expect("the manifest of the workspace");
    let lints = workspace.split("[workspace.lints.").skip(1).flat_map(|section| {
        let lines = section.lines().skip(1);
        lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty())
    });
    let lints: Vec<&str> = lints.collect();
    assert!(lints.len() > 10 && lints.contains(&"unsafe_code = \"forbid\""), "{lints:?}");
    let has = |lint: &str| manifest.lines().any(|line| line == lint);
    lints.iter().all(|lint| match *lint {
        "unsafe_code = \"forbid\"" => has("unsafe_code = \"deny\""),
        lint => has(lint),
    })
}

#[test]
fn every_crate_takes_the_lints_and_the_versions_of_the_workspace() {
    let crates = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    for entry in std::fs::read_dir(crates).expect("crates folder") {
        let manifest = entry.expect("entry").path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("manifest");
        // It calls into C, and what the workspace forbids cannot be allowed in one place.
        let takes_them = match manifest.ends_with("alloc/Cargo.toml") {
            true => has_the_lints_but_for_unsafe_code(&text),
            false => text.contains("[lints]\nworkspace = true"),
        };
        assert!(takes_them, "{}: take the lints of the workspace", manifest.display());
        let versioned = text.lines().find(|line| line.contains("version = \""));
        assert_eq!(versioned, None, "{}: versions live in the workspace's Cargo.toml", manifest.display());
    }
}

/// All circles, each as `crate: file, file`, and those of them that go across rooms.
fn all_circles() -> (Vec<String>, Vec<String>) {
    let (mut all, mut across) = (Vec::new(), Vec::new());
    for package in packages() {
        let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(&package.folder).join("src");
        let rooms = rooms(&src);
        for circle in Graph::read(&src).circles() {
            let files: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
            let shown = format!("{}: {}", package.folder, files.join(", "));
            let first = room(&circle[0], &rooms);
            if circle.iter().any(|module| room(module, &rooms) != first) {
                across.push(shown.clone());
            }
            all.push(shown);
        }
    }
    (all, across)
}

#[test]
fn files_that_import_each_other_only_become_fewer() {
    let (all, across) = all_circles();
    assert!(across.is_empty(), "circles across rooms:\n{}", across.join("\n"));
    let found = all.join("\n");
    assert!(all.len() <= CIRCLES, "{} circles, {CIRCLES} are allowed:\n{found}", all.len());
    assert_eq!(all.len(), CIRCLES, "fewer circles than before: write the new number into this file\n{found}");
}

#[test]
fn the_search_for_circles_sees_what_it_should() {
    let crate_of = |files: &[(&str, &str)]| {
        let module =
            |path: &str| path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        Graph::of(&files.iter().map(|(path, text)| (module(path), (*text).to_owned())).collect())
    };
    let circles = |files: &[(&str, &str)]| {
        let found = crate_of(files).circles();
        found.iter().map(|circle| circle.iter().map(|m| m.join("/")).collect()).collect::<Vec<Vec<_>>>()
    };
    let b = ("b", "use super::c::Thing;");
    assert_eq!(
        circles(&[("a", "use crate::{b::{self, B}, d};"), b, ("c", "fn f() { crate::a::f() }"), ("d", "")]),
        [["a", "b", "c"]]
    );
    assert_eq!(circles(&[("a", "mod x; fn f() { x::g() }"), ("a/x", "use super::f;")]), [["a", "a/x"]]);
    // The root lists what there is, comments are not code, and tests may look at everything.
    let none = [
        ("", "pub use a::A;"),
        ("a", "use crate::b::B;\n// crate::c::C\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n"),
        ("b", "#[cfg(test)]\nuse crate::a::A;\nuse crate::Root;"),
        ("c", "use crate::a; // crate::c::C"),
    ];
    assert_eq!(circles(&none), Vec::<Vec<String>>::new());
}

/// Modules that a crate's root both opens and exports from: their types have two public paths.
fn opened_twice(root: &str) -> Vec<&str> {
    let modules = root.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let exported = |module: &&str| root.contains(&format!("\npub use {module}::"));
    modules.filter(exported).collect()
}

#[test]
fn each_type_has_one_public_path() {
    assert_eq!(opened_twice("\npub mod a;\npub mod b;\nmod c;\npub use b::B;\npub use c::C;\n"), ["b"]);
    for package in packages() {
        let root =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(&package.folder).join("src/lib.rs");
        // The binary has no library.
        let Ok(text) = std::fs::read_to_string(root) else { continue };
        assert_eq!(
            opened_twice(&text),
            Vec::<&str>::new(),
            "{}: open the module or export from it",
            package.name
        );
    }
}
