//! The layout of ring buffer pages and of `cgroup:cgroup_attach_task` and `task:task_newtask` records, parsed
//! from the texts of tracefs. Pure.
//!
//! Offsets differ between kernels and architectures: `local_t commit` has 4 or 8 bytes, a
//! sub-buffer can be larger than 4 KiB (Linux 6.8), and `dst_id` had 4 bytes before Linux 5.5. So
//! nothing but the meaning of the event header (`events/header_event`, the same since Linux 2.6.31)
//! is assumed.

use std::fmt;

/// Largest accepted sub-buffer. The kernel's limit is lower, and an invalid text must not make the
/// daemon allocate gigabytes.
const MAX_PAGE: usize = 1 << 20;

/// Layout of pages and records on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLayout {
    pub(super) page: PageLayout,
    pub(super) record: RecordLayout,
    pub(super) birth: Option<BirthLayout>,
}

/// Offsets of the fields in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageLayout {
    pub(super) timestamp: usize,
    pub(super) commit: usize,
    /// Size of `commit` and of the count of lost records: an `unsigned long` of the kernel.
    pub(super) word: usize,
    pub(super) data: usize,
    /// Size of the whole page.
    pub(super) size: usize,
}

/// Offsets in a record, behind its event header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordLayout {
    /// Value of `common_type` in records of this event.
    pub(super) id: u16,
    pub(super) common_type: usize,
    pub(super) common_pid: usize,
    pub(super) dst_root: usize,
    pub(super) dst_id: usize,
    pub(super) pid: usize,
    pub(super) dst_path: usize,
    pub(super) comm: usize,
}

/// Offsets in a record of `task:task_newtask`, behind its event header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BirthLayout {
    /// Value of `common_type` in records of this event.
    pub(super) id: u16,
    pub(super) common_pid: usize,
    pub(super) pid: usize,
}

/// Reason why the text files of tracefs cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// A required field is missing.
    Missing(&'static str),
    /// A field has an unsupported size or type.
    Unsupported(&'static str),
    /// The line `ID:` is missing, or its number is invalid.
    Id,
    /// The page has no room for data, or exceeds 1 MiB.
    PageSize(usize),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "the field '{name}' is missing"),
            Self::Unsupported(name @ "dst_id") => {
                write!(f, "the field '{name}' does not have 8 bytes: cgroup IDs need Linux 5.5")
            }
            Self::Unsupported(name) => write!(f, "the field '{name}' has an unsupported type"),
            Self::Id => f.write_str("the event has no valid ID"),
            Self::PageSize(size) => write!(f, "invalid page size {size}"),
        }
    }
}

impl TraceLayout {
    /// Parses the texts of `events/header_page` and `events/cgroup/cgroup_attach_task/format`.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn parse(header_page: &str, event_format: &str) -> Result<Self, FormatError> {
        Ok(Self {
            page: PageLayout::parse(header_page)?,
            record: RecordLayout::parse(event_format)?,
            birth: None,
        })
    }

    /// Adds the records of births, by the text of `events/task/task_newtask/format`.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn with_births(self, event_format: &str) -> Result<Self, FormatError> {
        Ok(Self { birth: Some(BirthLayout::parse(event_format)?), ..self })
    }

    /// Returns the size of a page in bytes.
    pub fn page_size(&self) -> usize {
        self.page.size
    }

    /// Returns the number of bytes of a page that can hold events.
    pub fn data_size(&self) -> usize {
        self.page.size - self.page.data
    }
}

impl PageLayout {
    fn parse(text: &str) -> Result<Self, FormatError> {
        let commit = FormatField::find(text, "commit")?;
        let data = FormatField::find(text, "data")?;
        if !matches!(commit.size, 4 | 8) {
            return Err(FormatError::Unsupported("commit"));
        }
        let size = data.offset.saturating_add(data.size);
        if data.size == 0 || size > MAX_PAGE {
            return Err(FormatError::PageSize(size));
        }
        let timestamp = FormatField::sized(text, "timestamp", 8)?;
        Ok(Self { timestamp, commit: commit.offset, word: commit.size, data: data.offset, size })
    }
}

impl RecordLayout {
    fn parse(text: &str) -> Result<Self, FormatError> {
        Ok(Self {
            id: event_id(text)?,
            common_type: FormatField::sized(text, "common_type", 2)?,
            common_pid: FormatField::sized(text, "common_pid", 4)?,
            dst_root: FormatField::sized(text, "dst_root", 4)?,
            dst_id: FormatField::sized(text, "dst_id", 8)?,
            pid: FormatField::sized(text, "pid", 4)?,
            dst_path: FormatField::located(text, "dst_path")?,
            comm: FormatField::located(text, "comm")?,
        })
    }
}

impl BirthLayout {
    fn parse(text: &str) -> Result<Self, FormatError> {
        Ok(Self {
            id: event_id(text)?,
            common_pid: FormatField::sized(text, "common_pid", 4)?,
            pid: FormatField::sized(text, "pid", 4)?,
        })
    }
}

fn event_id(text: &str) -> Result<u16, FormatError> {
    let id = text.lines().find_map(|line| line.strip_prefix("ID:")).ok_or(FormatError::Id)?;
    id.trim().parse().map_err(|_| FormatError::Id)
}

/// Line `field:TYPE NAME;  offset:N;  size:N;  signed:N;` of a format file.
#[derive(Clone, Copy)]
struct FormatField<'a> {
    declaration: &'a str,
    offset: usize,
    size: usize,
}

impl<'a> FormatField<'a> {
    fn find(text: &'a str, name: &'static str) -> Result<Self, FormatError> {
        let mut fields = text.lines().filter_map(Self::parse);
        fields.find(|field| field.name() == Some(name)).ok_or(FormatError::Missing(name))
    }

    /// Returns the offset of a number, after checking its size.
    fn sized(text: &'a str, name: &'static str, size: usize) -> Result<usize, FormatError> {
        let field = Self::find(text, name)?;
        if field.size == size { Ok(field.offset) } else { Err(FormatError::Unsupported(name)) }
    }

    /// Returns the offset of the word that locates a string of variable length.
    fn located(text: &'a str, name: &'static str) -> Result<usize, FormatError> {
        let field = Self::find(text, name)?;
        let is_located = field.size == 4 && field.declaration.starts_with("__data_loc ");
        if is_located { Ok(field.offset) } else { Err(FormatError::Unsupported(name)) }
    }

    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.trim().split(';').map(str::trim);
        let declaration = parts.next()?.strip_prefix("field:")?.trim();
        // The kernel limits offsets in a record to 16 bits; the limit also keeps sums from
        // overflowing.
        let offset: u16 = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size: u32 = parts.next()?.strip_prefix("size:")?.parse().ok()?;
        Some(Self { declaration, offset: offset.into(), size: size.try_into().ok()? })
    }

    fn name(&self) -> Option<&'a str> {
        self.declaration.rsplit(' ').next()?.split('[').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = include_str!("../../tests/cases/trace/header_page");
    const FORMAT: &str = include_str!("../../tests/cases/trace/format");
    const NEWTASK: &str = include_str!("../../tests/cases/trace/newtask_format");

    #[test]
    fn the_texts_of_linux_6_18_on_x86_64() {
        let layout = TraceLayout::parse(HEADER, FORMAT).unwrap();
        let page = PageLayout { timestamp: 0, commit: 8, word: 8, data: 16, size: 4096 };
        assert_eq!((layout.page, layout.page_size(), layout.data_size()), (page, 4096, 4080));
        let record = RecordLayout {
            id: 538,
            common_type: 0,
            common_pid: 4,
            dst_root: 8,
            dst_id: 16,
            pid: 24,
            dst_path: 28,
            comm: 32,
        };
        assert_eq!((layout.record, layout.birth), (record, None));
        let birth = BirthLayout { id: 205, common_pid: 4, pid: 8 };
        assert_eq!(layout.with_births(NEWTASK).unwrap().birth, Some(birth));
        let error = layout.with_births("ID: 205\n").unwrap_err();
        assert_eq!(error, FormatError::Missing("common_pid"));
    }

    #[test]
    fn a_page_of_a_32_bit_kernel() {
        let text = HEADER.replace("offset:8;\tsize:8", "offset:8;\tsize:4");
        let text = text.replace("offset:16;\tsize:4080", "offset:12;\tsize:16372");
        let page = PageLayout::parse(&text).unwrap();
        assert_eq!((page.word, page.data, page.size), (4, 12, 16384));
    }

    #[test]
    fn errors_name_the_field() {
        fn error(header: &str, format: &str) -> String {
            TraceLayout::parse(header, format).map(drop).unwrap_err().to_string()
        }
        assert_eq!(error("", FORMAT), "the field 'commit' is missing");
        assert_eq!(error(HEADER, ""), "the event has no valid ID");
        let without = FORMAT.replace("int pid;", "int tid;");
        assert_eq!(error(HEADER, &without), "the field 'pid' is missing");
        let old = FORMAT.replace("offset:16;\tsize:8", "offset:16;\tsize:4");
        assert_eq!(
            error(HEADER, &old),
            "the field 'dst_id' does not have 8 bytes: cgroup IDs need Linux 5.5"
        );
        let relative = FORMAT.replace("__data_loc char[] comm", "__rel_loc char[] comm");
        assert_eq!(error(HEADER, &relative), "the field 'comm' has an unsupported type");
        let huge = HEADER.replace("size:4080", "size:4294967295");
        assert_eq!(error(&huge, FORMAT), "invalid page size 4294967311");
    }

    proptest! {
        #[test]
        fn any_text_is_a_layout_or_an_error(text in any::<String>(), at in 0usize..900) {
            let [header, format, task] = [HEADER, FORMAT, NEWTASK]
                .map(|whole| whole.get(..at).unwrap_or(whole).to_owned() + &text);
            let layout = TraceLayout::parse(HEADER, FORMAT).unwrap();
            for result in [
                TraceLayout::parse(&text, FORMAT),
                TraceLayout::parse(HEADER, &text),
                TraceLayout::parse(&header, &format),
                layout.with_births(&task),
            ] {
                let _shown = result.map_err(|error| error.to_string());
            }
        }
    }
}
