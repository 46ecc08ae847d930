"""The networks: configurations, models, processors and pipelines. Flat, because its files ship to the Hub."""
