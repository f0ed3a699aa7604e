//! Events, in the order of their commits.

use common::id::Name;
use site::permission::Permission;
use store::types::{Event, EventFilter};
use tokio::sync::watch;

use super::callers::Caller;
use super::core::Service;
use super::error::ServiceError;
use super::rights::{About, Denied};

/// Rows in one page.
pub const MAX_PAGE: usize = 1_000;
/// Pages of the store that are looked through for one page of a caller who sees little of them.
const LOOKS: usize = 64;
/// Each of them shows some events.
pub const EVENT_READERS: [Permission; 5] = [
    Permission::AgentRead,
    Permission::CommandRead,
    Permission::SiteRead,
    Permission::StatusRead,
    Permission::AuditRead,
];

/// Some events, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// Those that the caller may see.
    pub events: Vec<Event>,
    /// Everything up to this one was looked at.
    pub seen_to: u64,
    /// There may be more behind it.
    pub more: bool,
}

impl Service {
    /// Reads events behind `after`, oldest first, and leaves out those that are not for the caller.
    ///
    /// # Errors
    /// When no event is for the caller, or the store cannot be read.
    pub async fn events(
        &self,
        caller: &Caller,
        after: u64,
        limit: usize,
        filter: EventFilter,
    ) -> Result<EventPage, ServiceError> {
        let (rights, now) = (self.rights(), self.now());
        let mut held = EVENT_READERS.iter().map(|need| rights.somewhere(caller, *need, now));
        if !held.any(|held| held.is_ok()) {
            return Err(ServiceError::Forbidden { need: Permission::CommandRead, because: Denied::Roles });
        }
        let limit = limit.clamp(1, MAX_PAGE);
        if self.is_hidden(caller, &filter).await? {
            // A cursor would tell that there is something behind it.
            return Ok(EventPage { events: Vec::new(), seen_to: after, more: false });
        }
        let mut page = EventPage { events: Vec::new(), seen_to: after, more: true };
        for _ in 0..LOOKS {
            let rows = self.store().events(page.seen_to, limit, filter.clone()).await?;
            page.more = rows.len() >= limit;
            for event in rows {
                if page.events.len() >= limit {
                    page.more = true;
                    return Ok(page);
                }
                page.seen_to = event.seq;
                if self.sees_event(caller, &event) {
                    page.events.push(event);
                }
            }
            if !page.more || page.events.len() >= limit {
                break;
            }
        }
        Ok(page)
    }

    /// Tells whether a filter means an agent of which the caller may see nothing, by its name or by one of its commands.
    async fn is_hidden(&self, caller: &Caller, filter: &EventFilter) -> Result<bool, ServiceError> {
        let hidden = |agent: &Name| {
            let needs = [Permission::AgentRead, Permission::CommandRead];
            needs.iter().all(|need| self.may(caller, *need, About::Agent(agent)).is_err())
        };
        if filter.agent.as_ref().is_some_and(hidden) {
            return Ok(true);
        }
        let Some(id) = filter.command else { return Ok(false) };
        Ok(self.store().command(id).await?.is_some_and(|command| hidden(&command.agent)))
    }

    /// The number of the newest event; changes wake its watchers.
    #[must_use]
    pub fn events_changed(&self) -> watch::Receiver<u64> {
        self.store().events_changed()
    }
}
