"""The console: flows and the audit trail of all services."""

from services.console import api, reactions, workers
from shared.service import Service

service = Service("console", api.router, reactions, workers)

if __name__ == "__main__":
    service.run()
