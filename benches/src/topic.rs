//! Topics made for a measurement and taken away after it, through librdkafka's admin client.

use anyhow::{Result, anyhow};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

pub(crate) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Topics {
    pub(crate) fn new(bootstrap: &str) -> Result<Self> {
        let admin = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        Ok(Self { admin, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    pub(crate) fn make(&self, name: &str, partitions: usize) -> Result<()> {
        self.make_with(name, partitions, &[])
    }

    pub(crate) fn make_with(&self, name: &str, partitions: usize, settings: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = self.runtime.block_on(self.admin.create_topics([&topic], &AdminOptions::new()))?;
        made.into_iter().try_for_each(|one| one.map(drop).map_err(|(name, code)| anyhow!("{name}: {code}")))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let gone = self.runtime.block_on(self.admin.delete_topics(&[name], &AdminOptions::new()))?;
        gone.into_iter().try_for_each(|one| one.map(drop).map_err(|(name, code)| anyhow!("{name}: {code}")))
    }
}
