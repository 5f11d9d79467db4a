"""What every part of the stand-in uses: state, parameters, views, routes, errors."""
