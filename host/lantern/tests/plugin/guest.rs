//! Builds components from `guest.wat`: inserts the description and encodes the result.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Address of the description in the guest's memory.
const BASE: u32 = 1024;

/// The differences between guests.
#[derive(Default)]
pub struct Variant {
    /// Instructions of the start function; empty for none.
    pub start: &'static str,
    /// Instructions that run before `describe` returns.
    pub describe: &'static str,
    /// The declared plugin name; `by-hand` if empty.
    pub name: &'static str,
    /// The name of its table; `by_hand` if empty.
    pub table: &'static str,
    /// Whether it imports WASI and handles the messages of `wasi.wat`.
    pub wasi: bool,
}

/// Returns the guest as a component.
pub fn component(variant: &Variant) -> Vec<u8> {
    encode(&core_module(variant))
}

/// Returns the guest as a core module.
pub fn core_module(variant: &Variant) -> Vec<u8> {
    let start = match variant.start {
        "" => String::new(),
        body => format!("(func $start {body}) (start $start)"),
    };
    let name = if variant.name.is_empty() {
        "by-hand"
    } else {
        variant.name
    };
    let table = if variant.table.is_empty() {
        "by_hand"
    } else {
        variant.table
    };
    let data: String = description(name, table)
        .iter()
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let text = include_str!("guest.wat")
        .replace("\"(; DATA ;)\"", &format!("\"{data}\""))
        .replace("(; START ;)\n\n", &format!("{start}\n\n"))
        .replace("    (; DESCRIBE ;)\n", variant.describe);
    let text = ["IMPORTS", "FUNCTIONS", "MESSAGES"]
        .into_iter()
        .fold(text, |text, part| {
            let filling = if variant.wasi { wasi_part(part) } else { "" };
            text.replace(&format!("(; {part} ;)"), filling)
        });
    let mut module = wat::parse_str(&text).expect("guest.wat is valid");
    let mut resolve = Resolve::default();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/projection@0.1.0");
    let (package, _) = resolve.push_dir(dir).expect("the contract is valid");
    let (package, world) = if variant.wasi {
        let package = resolve.push_str("wasi.wit", include_str!("wasi.wit"));
        (package.expect("wasi.wit is valid"), "with-wasi")
    } else {
        (package, "plugin")
    };
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the package has the world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata fits");
    module
}

/// Returns one part of `wasi.wat`.
fn wasi_part(name: &str) -> &'static str {
    let (_, rest) = include_str!("wasi.wat")
        .split_once(&format!("(; PART {name} ;)"))
        .expect("wasi.wat has the part");
    rest.split("(; PART ").next().unwrap_or(rest)
}

fn encode(module: &[u8]) -> Vec<u8> {
    lantern_plugin::encode(module).expect("the guest can be encoded")
}

/// Encodes a manifest in the canonical ABI, for the address [`BASE`].
fn description(name: &str, table_name: &str) -> Vec<u8> {
    let mut memory = Memory { bytes: vec![0; 48] };
    let columns =
        [("n", 1, false), ("note", 3, true), ("j", 6, true)].map(|(name, column_type, nullable)| {
            let mut column = memory.string(name);
            column.extend([column_type, u8::from(nullable), 0, 0]);
            column.extend([0; 12]); // role none
            column.extend(memory.string("")); // doc
            column.extend(memory.list(&[])); // hints
            column
        });
    let sources = [("stream", 0_u32, 1_u32), ("plain", 0, 0), ("core", 1, 1)].map(|(name, kind, headers)| {
        let mut source = memory.string(name);
        source.extend(kind.to_le_bytes());
        let subject = memory.string("evil.>");
        if kind == 0 {
            source.extend(memory.string("EVIL"));
            source.extend(memory.list(&[subject]));
        } else {
            source.extend(memory.list(&[subject]));
            source.extend([0; 8]);
        }
        source.extend(headers.to_le_bytes());
        source
    });
    let mut table = memory.string(table_name);
    table.extend(memory.string(""));
    table.extend(memory.list(&columns));
    table.extend(memory.list(&[])); // primary key
    table.extend(memory.list(&[])); // indexes
    table.extend([0; 8]); // no retention
    table.extend(memory.list(&[])); // hints
    let names = ["n", "note", "j"].map(|name| memory.string(name));
    let mut write = memory.string(table_name);
    write.extend(memory.list(&names));
    write.extend([0; 32]); // on conflict fail
    let mut manifest = memory.string(name);
    manifest.extend(memory.string("1.0.0"));
    manifest.extend(memory.string("misbehaves on request"));
    manifest.extend(memory.list(&sources));
    manifest.extend(memory.list(&[table]));
    manifest.extend(memory.list(&[write]));
    memory.bytes[..48].copy_from_slice(&manifest);
    memory.bytes
}

struct Memory {
    bytes: Vec<u8>,
}

impl Memory {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = BASE + u32::try_from(self.bytes.len()).unwrap();
        self.bytes.extend(bytes);
        at
    }

    fn string(&mut self, text: &str) -> Vec<u8> {
        pair(self.put(text.as_bytes()), text.len())
    }

    fn list(&mut self, items: &[Vec<u8>]) -> Vec<u8> {
        pair(self.put(&items.concat()), items.len())
    }
}

fn pair(at: u32, length: usize) -> Vec<u8> {
    [at.to_le_bytes(), u32::try_from(length).unwrap().to_le_bytes()].concat()
}
