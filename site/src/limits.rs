//! Every size and count limit of documents, each with its reason.

/// Bytes of one document: a thousand agents with data of their own; more belongs into several files.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;
/// Values in one document with all aliases counted as if they were written out: what memory and every later walk pay.
pub const MAX_NODES: u64 = 500_000;
/// Levels of nesting: nobody reads deeper ones, and every walk may recurse.
pub const MAX_DEPTH: usize = 64;
/// Problems that are collected before the rest is only counted: a screen or two.
pub const MAX_PROBLEMS: usize = 50;
/// Characters of a line that a message shows.
pub const MAX_SNIPPET: usize = 160;
/// Characters of a group's name: it stands in folder names and in every listing.
pub const MAX_GROUP_NAME: usize = 64;
/// Groups in one line of `groups.yml`.
pub const MAX_GROUPS_OF_ENTRY: usize = 100;
/// Bytes of a target expression: a few hundred names.
pub const MAX_TARGET: usize = 16 * 1024;
/// Nesting of a target expression: matching recurses.
pub const MAX_TARGET_DEPTH: usize = 32;
/// Networks an agent may connect from: more is a mistake, and each connect looks at all of them.
pub const MAX_NETWORKS: usize = 256;
/// Rules of one role.
pub const MAX_RULES: usize = 200;
/// Items in one list of a rule.
pub const MAX_RULE_ITEMS: usize = 200;
/// Files of a site: each is hashed at every change.
pub const MAX_FILES: usize = 100_000;
/// Bytes of one file: what one answer to an agent may take from memory several times.
pub const MAX_FILE: usize = 16 * 1024 * 1024;
/// Bytes of all files: a revision is held in memory.
pub const MAX_SITE: usize = 256 * 1024 * 1024;
/// Bytes of a path inside of a site.
pub const MAX_PATH: usize = 1024;
/// Bytes of one part of a path: what Linux filesystems take for a name.
pub const MAX_PART: usize = 255;
/// Levels of folders.
pub const MAX_FOLDER_DEPTH: usize = 32;
