"""gunicorn's configuration for gevent with --preload: gevent patches modules before the app imports them."""

from gevent import monkey

monkey.patch_all()
