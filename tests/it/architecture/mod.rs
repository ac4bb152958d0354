//! Holds the source against the layer table and the invariants of ARCHITECTURE.md.

mod circles;
mod modules;
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");
const HEADING: &str = "| room | layer | may import | what it is |";

/// What a pure room may not name: clocks, I/O, logs and metrics.
const IMPURE: [&str; 10] = [
    "SystemTime::now",
    "Instant::now",
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "tracing",
    "prometheus",
    "println!",
    "rand::",
];

struct Room {
    layer: u32,
    imports: BTreeSet<String>,
    is_pure: bool,
}

fn table() -> BTreeMap<String, Room> {
    let (_, rows) = ARCHITECTURE.split_once(HEADING).expect("the layer table");
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, layer, imports, prose] = cells[..] else { panic!("four columns: {row}") };
        let words = imports.split_whitespace().filter(|word| *word != "–");
        let room = Room {
            layer: layer.parse().unwrap(),
            imports: words.map(unquoted).collect(),
            is_pure: prose.ends_with("Pure."),
        };
        (unquoted(name), room)
    })
    .collect()
}

fn unquoted(word: &str) -> String {
    word.trim_matches('`').to_owned()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms: the folders and files of `src`.
fn rooms() -> BTreeSet<String> {
    let entries = std::fs::read_dir(source()).unwrap().map(|entry| entry.unwrap().path());
    let names = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| name != "lib" && name != "main").collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The files of a room with their text, comments left out.
fn files_of(room: &str) -> Vec<(PathBuf, String)> {
    let folder = source().join(room);
    let files =
        if folder.is_dir() { rust_files(&folder) } else { vec![folder.with_extension("rs")] };
    files
        .into_iter()
        .map(|file| (file.clone(), code(&std::fs::read_to_string(file).unwrap())))
        .collect()
}

fn code(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// The rooms that a text names in `crate::room` and `crate::{room::…, …}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, path) in code.match_indices("crate::") {
        let after = &code[at + path.len()..];
        match after.strip_prefix('{') {
            Some(group) => found.extend(members(group).iter().map(|member| first_word(member))),
            None => drop(found.insert(first_word(after))),
        }
    }
    found
}

/// The members of a `{…}` group whose opening brace has been taken, nested groups left whole.
fn members(group: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut depth = 0;
    for character in group.chars() {
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            other => members.last_mut().unwrap().push(other),
        }
    }
    members.into_iter().filter(|member| !member.trim().is_empty()).collect()
}

fn first_word(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

#[test]
fn the_table_names_the_rooms_that_there_are() {
    let listed: BTreeSet<String> = table().into_keys().collect();
    assert_eq!(listed, rooms());
}

#[test]
fn the_table_lets_no_room_import_its_own_or_a_higher_layer() {
    let table = table();
    for (name, room) in &table {
        for import in &room.imports {
            let imported = table
                .get(import)
                .unwrap_or_else(|| panic!("{name} may import {import}: no such room"));
            assert!(
                imported.layer < room.layer,
                "{name} may import {import}, which is not below it"
            );
        }
    }
}

#[test]
fn rooms_import_what_the_table_allows() {
    let mut wrong = Vec::new();
    for (name, room) in table() {
        for (file, code) in files_of(&name) {
            let strange = imports(&code)
                .into_iter()
                .filter(|import| *import != name && !room.imports.contains(import));
            wrong.extend(strange.map(|import| format!("{} imports {import}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md does not allow this:\n{}", wrong.join("\n"));
}

#[test]
fn no_path_climbs_out_of_its_room() {
    for name in rooms() {
        for (file, code) in files_of(&name) {
            assert!(!code.contains("super::super::"), "{}: write `crate::`", file.display());
        }
    }
}

#[test]
fn pure_rooms_have_no_clock_and_no_io() {
    let pure: Vec<String> =
        table().into_iter().filter(|(_, room)| room.is_pure).map(|(name, _)| name).collect();
    assert_eq!(
        pure,
        ["advise", "coding", "comparison", "fence", "field", "key", "leak", "policy", "route"]
    );
    for name in pure {
        for (file, code) in files_of(&name) {
            for word in IMPURE {
                assert!(!code.contains(word), "{} names {word}", file.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "fuzz/fuzz_targets", "bench/bare/src"] {
        for file in rust_files(&root.join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//! "),
                "{} does not open with a `//!` sentence",
                file.display()
            );
        }
    }
}

#[test]
fn the_files_that_the_page_names_exist() {
    let named = ARCHITECTURE.split('`').filter(|word| {
        let is_path = |byte: u8| byte.is_ascii_lowercase() || b"/_0123456789".contains(&byte);
        word.contains('/') && word.trim_end_matches(".rs").bytes().all(is_path)
    });
    let root = source();
    let missing: Vec<&str> = named
        .filter(|path| !root.join(path).exists() && !root.join("..").join(path).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names these: {missing:?}");
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::{\n    field::{date, list},\n    key::Key, policy,\n};\nlet a = crate::route::Route;";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["field", "key", "policy", "route"]);
}
