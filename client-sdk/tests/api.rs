//! What is public, and what is shown first. What is public is written down in `api.txt`, so that a change of it is seen. `BLESS=1 cargo test -p client-sdk --test api`
//! writes it anew.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use quote::ToTokens;
use syn::{Attribute, Fields, ImplItem, Item, Signature, TraitItem, Visibility};

/// The files whose public items `lib.rs` exports.
const FILES: [&str; 7] = [
    "client.rs",
    "config.rs",
    "conversation.rs",
    "entry.rs",
    "error.rs",
    "events.rs",
    "lib.rs",
];

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Tokens as a line, without the blanks that they are printed with.
fn line(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (wide, narrow) in [
        (" :: ", "::"),
        (" < ", "<"),
        (" >", ">"),
        ("< ", "<"),
        (" ,", ","),
        ("& ", "&"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" :", ":"),
        ("'_ ", "'_ "),
    ] {
        text = text.replace(wide, narrow);
    }
    text
}

/// `#[non_exhaustive]` and conditions: they belong to the face.
fn marks(attributes: &[Attribute]) -> String {
    let marks = attributes.iter().filter(|attribute| {
        let path = attribute.path();
        path.is_ident("non_exhaustive") || path.is_ident("cfg") || path.is_ident("must_use")
    });
    marks.map(|mark| line(mark) + " ").collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && line(attribute).contains("test"))
}

fn fields(fields: &Fields, all: bool, out: &mut String) {
    for field in fields {
        if all || is_public(&field.vis) {
            let name = field.ident.as_ref().map(|name| format!("{name}: "));
            writeln!(out, "    {}{}", name.unwrap_or_default(), line(&field.ty)).unwrap();
        }
    }
}

fn function(of: &str, attributes: &[Attribute], signature: &Signature, out: &mut String) {
    writeln!(out, "{}{of}{}", marks(attributes), line(signature)).unwrap();
}

fn item(item: &Item, out: &mut String) {
    match item {
        Item::Struct(one) if is_public(&one.vis) => {
            writeln!(out, "{}struct {}", marks(&one.attrs), one.ident).unwrap();
            fields(&one.fields, false, out);
        }
        Item::Enum(one) if is_public(&one.vis) => {
            writeln!(out, "{}enum {}", marks(&one.attrs), one.ident).unwrap();
            for variant in &one.variants {
                writeln!(out, "  {}", variant.ident).unwrap();
                fields(&variant.fields, true, out);
            }
        }
        Item::Impl(one) => {
            let of = line(&one.self_ty);
            if let Some((_, name, _)) = &one.trait_ {
                writeln!(out, "impl {} for {of}", line(name)).unwrap();
                return;
            }
            for item in &one.items {
                if let ImplItem::Fn(method) = item
                    && is_public(&method.vis)
                {
                    function(&format!("{of}: "), &method.attrs, &method.sig, out);
                }
            }
        }
        Item::Trait(one) if is_public(&one.vis) => {
            writeln!(out, "trait {}", one.ident).unwrap();
            for item in &one.items {
                if let TraitItem::Fn(method) = item {
                    function("  ", &method.attrs, &method.sig, out);
                }
            }
        }
        Item::Fn(one) if is_public(&one.vis) => function("", &one.attrs, &one.sig, out),
        Item::Use(one) if is_public(&one.vis) => writeln!(out, "{}", line(one)).unwrap(),
        _ => {}
    }
}

#[test]
fn the_public_face_is_the_one_that_is_written_down() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut face = String::new();
    for file in FILES {
        writeln!(face, "# {file}").unwrap();
        let source = fs::read_to_string(crate_folder.join("src").join(file)).unwrap();
        for one in syn::parse_file(&source).unwrap().items {
            if !matches!(&one, Item::Mod(module) if is_test(&module.attrs)) {
                item(&one, &mut face);
            }
        }
    }
    let written = crate_folder.join("api.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&written, &face).unwrap();
    }
    let known = fs::read_to_string(&written).unwrap_or_default();
    assert!(
        known == face,
        "the public face has changed: BLESS=1 writes api.txt anew; is it a new version?\n{face}"
    );
}

#[test]
fn the_readme_begins_with_the_first_example() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(crate_folder.join("README.md")).unwrap();
    let example = fs::read_to_string(crate_folder.join("examples/two_users.rs")).unwrap();
    let (_, behind) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = behind.split_once("```").unwrap();
    assert!(
        example.ends_with(shown),
        "examples/two_users.rs is not what the README shows"
    );
    let lines = shown
        .lines()
        .skip_while(|line| !line.starts_with("pub async fn"));
    let lines = lines.take_while(|line| !line.starts_with('}')).count() + 1;
    assert!(lines <= 16, "a chat in 15 lines and its name: {lines}");
}
