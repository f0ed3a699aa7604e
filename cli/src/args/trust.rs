//! The arguments of the verbs about trust: who may join, who may give orders, what the site says of them, and the record
//! of it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use common::config::HumanDuration;
use common::id::Name;
use common::pin::Pin;

use super::values;

/// `join-token`
#[derive(Debug, Clone, Args)]
pub struct JoinTokenArgs {
    #[command(subcommand)]
    pub verb: JoinTokenVerb,
}

/// The verbs of `join-token`
#[derive(Debug, Clone, Subcommand)]
pub enum JoinTokenVerb {
    /// Make the line with which a new host joins; it is shown once
    New(JoinTokenNew),
    /// List join tokens
    #[command(after_help = "Needs: join.manage")]
    List,
    /// Make a join token worthless; hosts that joined with it stay
    Revoke(JoinTokenRevoke),
}

/// `join-token new`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The line holds a secret: who has it can join. On the host:
  paprika-agent join TOKEN      or, so that it stands in no process list:
  paprika-agent join --token-file FILE

Examples:
  paprika join-token new --group web
  paprika join-token new --name 'web*' --uses 20 --ttl 4h --from 10.1.0.0/16

Needs: join.manage")]
pub struct JoinTokenNew {
    /// Put who joins into this group
    #[arg(long = "group", value_name = "GROUP", value_parser = values::group)]
    pub groups: Vec<String>,
    /// How many hosts may join with it [default: 1]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub uses: Option<u32>,
    /// How long it is good [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub ttl: Option<HumanDuration>,
    /// The names a host may take, with * and ? [default: any that has no entry in agents.yml]
    #[arg(long, value_name = "PATTERN", value_parser = values::pattern)]
    pub name: Option<String>,
    /// The network a host may join from, 10.1.0.0/16 [default: any]
    #[arg(long = "from", value_name = "CIDR", value_parser = values::network)]
    pub addresses: Vec<String>,
}

/// `join-token revoke`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: join.manage")]
pub struct JoinTokenRevoke {
    /// The token's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `operator`
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    #[command(subcommand)]
    pub verb: OperatorVerb,
}

/// The verbs of `operator`
#[derive(Debug, Clone, Subcommand)]
pub enum OperatorVerb {
    /// Issue a certificate for an operator and write it with its key
    Cert(OperatorCert),
    /// List operators' certificates
    #[command(after_help = "Needs: operator.manage")]
    List,
    /// Make all certificates of an operator worthless
    Revoke(OperatorRevoke),
}

/// `operator cert`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The key is made here and stays here. What the bearer may do follows from the
roles that roles.yml gives an operator of this name, and cannot be more than
you may yourself.

Needs: operator.manage")]
pub struct OperatorCert {
    /// The operator
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
    /// Write cert.pem, key.pem and ca.pem into this folder
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How long it is good [default: as the manager is set]
    #[arg(long, value_name = "TIME", value_parser = values::span)]
    pub ttl: Option<HumanDuration>,
    /// Replace files that are there already
    #[arg(long)]
    pub force: bool,
}

/// `operator revoke`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: operator.manage")]
pub struct OperatorRevoke {
    /// The operator
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
}

/// `login`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The manager's CA is taken from --ca; or from the manager itself when it has the
--pin, or when you say that the pin shown is right. Nothing is sent before. The
pin stands in every join token and in `paprika ca show`.

The token is read from --token-file, or asked for. The context is tried before
it is written to ~/.config/paprika/config.yml, which only you can read.

Examples:
  paprika login https://manager.example:7050 --pin 3f0c... --token-file -
  paprika login https://manager.example:7050 --ca ca.pem --cert cert.pem --key key.pem

Needs: any good credential")]
pub struct LoginArgs {
    /// Where the manager is: https://host:port
    #[arg(value_name = "URL")]
    pub url: String,
    /// What to call it here [default: its host]
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub name: Option<Name>,
    /// Trust the manager by this CA certificate
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub ca: Option<PathBuf>,
    /// Trust the manager by the SHA-256 of its CA certificate, 64 hexadecimal digits
    #[arg(long, value_name = "SHA256", value_parser = values::pin)]
    pub pin: Option<Pin>,
    /// Show the token in this file; - reads it from our standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert", "key"])]
    pub token_file: Option<PathBuf>,
    /// Show this client certificate instead of a token
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Replace the context of this name
    #[arg(long)]
    pub force: bool,
}

/// `site`
#[derive(Debug, Clone, Args)]
pub struct SiteArgs {
    #[command(subcommand)]
    pub verb: SiteVerb,
}

/// The verbs of `site`
#[derive(Debug, Clone, Subcommand)]
pub enum SiteVerb {
    /// Check a folder as the manager would, without a manager
    Check(SiteCheck),
    /// Show what is in force, what waits for approval and what is wrong
    Show(SiteShow),
    /// Take a folder into force, all of it or nothing
    Push(SitePushArgs),
    /// List revisions, the newest first
    Revisions(SiteRevisions),
    /// Take a held revision into force
    Approve(SiteDecision),
    /// Refuse a held revision
    Reject(SiteDecision),
}

/// `site check`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Exit code: 0 when nothing is wrong, 1 when something is.

Needs: no manager")]
pub struct SiteCheck {
    /// The folder of the site
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// `site show`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: site.read")]
pub struct SiteShow {
    /// Show this revision with its files instead
    #[arg(value_name = "NUMBER", value_parser = values::revision)]
    pub number: Option<u64>,
}

/// `site push`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The folder is checked here first. What is in force there and not in the folder
is gone afterwards. Changes of what grants rights (agents.yml, groups.yml,
roles.yml, operations/, requests/) need site.trust too.

Needs: site.read, site.write")]
pub struct SitePushArgs {
    /// The folder of the site
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Refuse when another revision than this is in force [default: the one in force now]
    #[arg(long, value_name = "NUMBER", value_parser = values::revision)]
    pub base: Option<u64>,
    /// Only say what would change
    #[arg(long)]
    pub check: bool,
}

/// `site revisions`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: site.read")]
pub struct SiteRevisions {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    pub limit: u32,
}

/// `site approve` and `site reject`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: site.trust")]
pub struct SiteDecision {
    /// The revision, as `paprika site show` lists it
    #[arg(value_name = "NUMBER", value_parser = values::revision)]
    pub number: u64,
}

/// `audit`
#[derive(Debug, Clone, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  paprika audit --actor alice --limit 20
  paprika audit --action token. --follow -o json

Needs: audit.read"
)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub verb: Option<AuditVerb>,
    /// Only what this operator or agent did
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only this action; with a dot at its end all that begin so (token.)
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Go on with what is done
    #[arg(short, long)]
    pub follow: bool,
    /// Begin behind this row
    #[arg(long, value_name = "NUMBER", value_parser = values::audit_row)]
    pub after: Option<u64>,
    /// How many at most, when not following
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = values::count)]
    pub limit: u32,
}

/// The verbs of `audit`
#[derive(Debug, Clone, Subcommand)]
pub enum AuditVerb {
    /// Check that no row was changed, taken out or cut off
    Verify(AuditVerify),
    /// Write all rows into a file, one JSON document a line
    Export(AuditExport),
}

/// `audit verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The manager checks its rows and its signed checkpoints. A copy of the file of
checkpoints that was kept elsewhere shows also what somebody did who can change
everything on the manager's host.

Exit code: 0 when all is as it was, 1 when a row is not.

Needs: audit.read")]
pub struct AuditVerify {
    /// Compare also with this copy of the manager's audit.checkpoints
    #[arg(long, value_name = "FILE")]
    pub checkpoints: Option<PathBuf>,
}

/// `audit export`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: audit.read")]
pub struct AuditExport {
    /// The file to write; - writes to standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace the file when it is there already
    #[arg(long)]
    pub force: bool,
}

/// `ca`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A rotation is prepare, activate, retire. Between the steps agents fetch what
they need by themselves; `ca show` says how many are still without.")]
pub struct CaArgs {
    #[command(subcommand)]
    pub verb: CaVerb,
}

/// The verbs of `ca`
#[derive(Debug, Clone, Subcommand)]
pub enum CaVerb {
    /// Show which certificates are trusted and which one signs
    #[command(after_help = "Needs: ca.manage")]
    Show,
    /// Make the next CA certificate and let everybody trust it
    #[command(after_help = "Needs: ca.manage")]
    Prepare,
    /// Sign with the prepared certificate from now on
    Activate(CaStep),
    /// Trust the old certificate no more
    Retire(CaStep),
}

/// `ca activate` and `ca retire`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Needs: ca.manage")]
pub struct CaStep {
    /// Also when agents would be shut out by it
    #[arg(long)]
    pub force: bool,
}
