//! Parses any page of a trace buffer to moves or an error, with the layout of this machine and with
//! any layout that is parsed: the texts of tracefs and the page are separated by zero bytes.
#![no_main]

use std::sync::OnceLock;

use cgruled::event::trace_format::TraceLayout;
use cgruled::event::trace_page::TracePage;
use libfuzzer_sys::fuzz_target;

const HEADER: &str = include_str!("../../tests/cases/trace/header_page");
const FORMAT: &str = include_str!("../../tests/cases/trace/format");
const NEWTASK: &str = include_str!("../../tests/cases/trace/newtask_format");

fn end(layout: &TraceLayout, bytes: &[u8]) {
    let Ok(page) = TracePage::parse(layout, bytes) else { return };
    assert!(page.moves().count() <= bytes.len() / 4);
    for found in page.moves().flatten() {
        assert!(found.path.len().max(found.comm.len()) <= bytes.len());
    }
}

/// Returns the layouts of this machine, without and with births.
fn layouts() -> [TraceLayout; 2] {
    let layout = || TraceLayout::parse(HEADER, FORMAT).expect("a valid layout");
    [layout(), layout().with_births(NEWTASK).expect("a valid layout")]
}

fuzz_target!(|bytes: &[u8]| {
    static LAYOUTS: OnceLock<[TraceLayout; 2]> = OnceLock::new();
    for layout in LAYOUTS.get_or_init(layouts) {
        end(layout, bytes);
    }
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
    match TraceLayout::parse(text(), text()) {
        Ok(layout) => end(&layout, parts.next().unwrap_or_default()),
        Err(error) => drop(error.to_string()),
    }
});
