//! The modules of `src/` as the compiler reads them, without tests: what each imports and defines.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility, visit::Visit};

/// The path of a module from the root of the crate, such as `["store", "redis", "queue"]`.
pub(super) type ModulePath = Vec<String>;

/// One file.
#[derive(Default)]
pub(super) struct Module {
    /// Paths that its code names, absolute from the root of the crate.
    pub named: BTreeSet<Vec<String>>,
    /// Names that it passes on by `pub use`, with what they stand for.
    pub reexports: BTreeMap<String, Vec<String>>,
    /// Types that other files can name.
    pub types: BTreeSet<String>,
}

/// Reads all modules below a folder.
pub(super) fn read(source: &Path) -> BTreeMap<ModulePath, Module> {
    let mut files = BTreeMap::new();
    for file in super::rust_files(source) {
        let mut path: ModulePath = file
            .strip_prefix(source)
            .unwrap()
            .with_extension("")
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        path.pop_if(|last| last == "mod");
        if path != ["lib"] && path != ["main"] {
            files.insert(path, syn::parse_file(&std::fs::read_to_string(&file).unwrap()).unwrap());
        }
    }
    let tests: BTreeSet<ModulePath> =
        files.iter().flat_map(|(path, file)| test_modules(path, file)).collect();
    files.retain(|path, _| !tests.iter().any(|test| path.starts_with(test)));
    let known: BTreeSet<ModulePath> = files.keys().cloned().collect();
    files
        .into_iter()
        .map(|(path, file)| {
            let mut reader = Reader { known: &known, path: &path, module: Module::default() };
            reader.visit_file(&file);
            let module = reader.module;
            (path, module)
        })
        .collect()
}

/// The modules that a file declares for tests only.
fn test_modules(path: &ModulePath, file: &syn::File) -> Vec<ModulePath> {
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if is_for_tests(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    });
    declared.map(|name| [path.as_slice(), &[name]].concat()).collect()
}

/// Returns whether something is compiled only under `cfg(test)`, `cfg(fuzzing)` or a feature of tests.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            _ => return false,
        };
        !text.starts_with("not") && (text.contains("test") || text.contains("feature"))
    })
}

struct Reader<'a> {
    known: &'a BTreeSet<ModulePath>,
    path: &'a ModulePath,
    module: Module,
}

impl Reader<'_> {
    /// Returns a path as written from the root of the crate, or `None` if it leads out of the crate.
    fn absolute(&self, written: &[String]) -> Option<Vec<String>> {
        let (first, rest) = written.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.clone(),
            "super" => self.path[..self.path.len().checked_sub(1)?].to_vec(),
            child => {
                let child = [self.path.as_slice(), &[child.to_owned()]].concat();
                self.known.contains(&child).then_some(child)?
            }
        };
        for part in rest {
            match part.as_str() {
                "super" => drop(base.pop()),
                "self" | "*" => {}
                part => base.push(part.to_owned()),
            }
        }
        Some(base)
    }

    fn name(&mut self, written: &[String]) {
        let path = self.absolute(written);
        self.module.named.extend(path);
    }

    /// Finds the paths in the arguments of a macro, which are not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) if colons == 2 => path.push(word.to_string()),
                TokenTree::Ident(word) => {
                    self.name(&std::mem::replace(&mut path, vec![word.to_string()]));
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.scan(group.stream()),
                _ => self.name(&std::mem::take(&mut path)),
            }
            colons = 0;
        }
        self.name(&path);
    }

    fn define(&mut self, visibility: &Visibility, name: &syn::Ident) {
        if !matches!(visibility, Visibility::Inherited) {
            self.module.types.insert(name.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if is_for_tests(attributes) {
            return;
        }
        match item {
            Item::Struct(item) => self.define(&item.vis, &item.ident),
            Item::Enum(item) => self.define(&item.vis, &item.ident),
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define(&item.vis, &item.ident);
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define(&item.vis, &item.ident);
        syn::visit::visit_item_type(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (name, written) in leaves(&item.tree) {
            let Some(path) = self.absolute(&written) else { continue };
            if matches!(item.vis, Visibility::Inherited) {
                self.module.named.insert(path);
            } else {
                self.module.reexports.insert(name, path);
            }
        }
    }

    /// Skips the path of `pub(super)` and `pub(in …)`, which names no item.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        self.name(&written);
        if let [name, ..] = &written[..]
            && let Some(path) = self.module.reexports.get(name)
        {
            self.module.named.insert(path.clone());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.scan(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}

/// The names that a `use` brings in, each with its path.
fn leaves(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        UseTree::Path(path) => {
            let below = leaves(&path.tree).into_iter();
            below
                .map(|(name, rest)| (name, [vec![path.ident.to_string()], rest].concat()))
                .collect()
        }
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(renamed) => {
            vec![(renamed.rename.to_string(), vec![renamed.ident.to_string()])]
        }
        UseTree::Glob(_) => vec![("*".to_owned(), vec!["*".to_owned()])],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// Returns the module that defines what a path names: re-exports are followed.
pub(super) fn definition(
    modules: &BTreeMap<ModulePath, Module>,
    path: &[String],
) -> Option<ModulePath> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let length =
            (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let passed_on = rest.first().and_then(|name| modules[module].reexports.get(name));
        match passed_on {
            Some(target) => path = [target.as_slice(), &rest[1..]].concat(),
            None => return Some(module.to_vec()),
        }
    }
    None
}
