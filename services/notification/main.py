"""The notification service."""

from services.notification import api, reactions, workers
from shared.service import Service

service = Service("notification", api.router, reactions, workers)

if __name__ == "__main__":
    service.run()
