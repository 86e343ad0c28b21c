import csv
import io

from werkzeug.wrappers import Response

from threadko.web.handlers import http


class Reports:
    name = "reports"

    @http("GET", "/rows/<int:count>")
    def rows(self, request, count):
        # The generator runs inside the worker: dependencies last until it is closed.
        return Response(self.iter_rows(count), mimetype="text/csv")

    def iter_rows(self, count):
        for number in range(count):
            line = io.StringIO()
            csv.writer(line).writerow([number, number * number])
            yield line.getvalue()
