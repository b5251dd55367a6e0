//! Parses the text of configuration files into rules and settings, with diagnostics; it reads no
//! files itself, which [`crate::policy::load`] does. There is one file for each syntax.

pub mod cgconfig_conf;
pub mod cgrules_conf;
mod criteria;
pub mod daemon_toml;
pub mod diagnostic;
pub mod escape;
mod gate;
mod group_table;
mod observe;
pub mod quantity;
mod requires;
mod rule_table;
pub mod rule_text;
pub mod rules_toml;
mod sections;
pub mod source_text;
mod table;
pub mod test_table;
mod unit_table;

pub use criteria::account::AccountRef;
pub use group_table::{GroupSetting, GroupTable, SettingValue};
pub(crate) use table::misspelled;
pub(crate) use unit_table::is_unit;
pub use unit_table::{USER_SLICES, UnitTable, UnitTarget};
