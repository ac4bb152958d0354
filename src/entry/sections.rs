//! The layout of a stored response's block of memory.

use std::ops::Range;

/// The sections of the block, in order. The body follows them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Section {
    Key,
    Url,
    Attributes,
    Tags,
    Fields,
    Trailers,
}

/// The end of each section, as an offset in the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectionEnds(pub [u32; 6]);

impl SectionEnds {
    #[inline]
    pub(super) fn range(self, section: Section) -> Range<usize> {
        let [key, url, attributes, tags, fields, trailers] = self.0;
        let (start, end) = match section {
            Section::Key => (0, key),
            Section::Url => (key, url),
            Section::Attributes => (url, attributes),
            Section::Tags => (attributes, tags),
            Section::Fields => (tags, fields),
            Section::Trailers => (fields, trailers),
        };
        start as usize..end as usize
    }

    /// Returns the offset of the body.
    #[inline]
    pub(super) fn body(self) -> usize {
        self.range(Section::Trailers).end
    }
}
